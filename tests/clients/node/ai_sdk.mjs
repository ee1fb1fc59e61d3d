// The AI SDK; the variant says by which provider: "openai-compatible" or "responses".
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { left, run, weather } from "./client.mjs";

function asked({ url, model, prompt, variant }) {
  const provider =
    variant === "responses"
      ? createOpenAI({ baseURL: url, apiKey: "any" })
      : createOpenAICompatible({ name: "line", baseURL: url, apiKey: "any", supportsStructuredOutputs: true });
  return { model: provider(model), prompt, maxRetries: 0 };
}

async function plain(order) {
  return { text: (await generateText(asked(order))).text };
}

async function stream(order) {
  const pieces = [];
  for await (const piece of streamText(asked(order)).textStream) pieces.push(piece);
  return { text: pieces.join(""), pieces: pieces.length };
}

async function tools(order) {
  const offered = {
    weather: tool({ description: "The weather.", inputSchema: z.object({ place: z.string() }), execute: weather }),
  };
  const { steps, text } = await generateText({ ...asked(order), tools: offered, stopWhen: stepCountIs(3) });
  const [call] = steps[0].toolCalls;
  return { tool: call.toolName, arguments: call.input, text };
}

async function structured(order) {
  const output = Output.object({ schema: z.object({ answer: z.int() }) });
  return { structured: (await generateText({ ...asked(order), output })).output };
}

async function leave(order) {
  const abort = new AbortController();
  for await (const _ of streamText({ ...asked(order), abortSignal: abort.signal }).textStream) {
    abort.abort();
    break;
  }
  return left();
}

await run({ plain, stream, tools, structured, leave });
