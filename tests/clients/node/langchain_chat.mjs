// LangChain.js; the variant says by which of its packages: "openai", "responses" or "ollama".
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOllama } from "@langchain/ollama";
import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";
import { left, run, weather } from "./client.mjs";

function connect({ url, model, variant }) {
  if (variant === "ollama") return new ChatOllama({ baseUrl: url, model, maxRetries: 0 });
  const configuration = { baseURL: url };
  return new ChatOpenAI({ model, apiKey: "any", configuration, useResponsesApi: variant === "responses", maxRetries: 0 });
}

async function plain(order) {
  return { text: (await connect(order).invoke(order.prompt)).text };
}

async function stream(order) {
  const pieces = [];
  for await (const chunk of await connect(order).stream(order.prompt)) if (chunk.text) pieces.push(chunk.text);
  return { text: pieces.join(""), pieces: pieces.length };
}

async function tools(order) {
  const schema = z.object({ place: z.string() });
  const model = connect(order).bindTools([tool(weather, { name: "weather", description: "The weather.", schema })]);
  const question = new HumanMessage(order.prompt);
  const first = await model.invoke([question]);
  const [call] = first.tool_calls;
  const result = new ToolMessage({ content: weather(call.args), tool_call_id: call.id });
  const second = await model.invoke([question, first, result]);
  return { tool: call.name, arguments: call.args, text: second.text };
}

async function structured(order) {
  const model = connect(order).withStructuredOutput(z.object({ answer: z.int() }), { method: "jsonSchema" });
  return { structured: await model.invoke(order.prompt) };
}

// Aborted while it waits for the next piece: ChatOllama does not close its connection when the loop is left by `break`
// or when the signal comes inside of the loop, whichever server it asks.
async function leave(order) {
  const abort = new AbortController();
  let timer;
  try {
    for await (const chunk of await connect(order).stream(order.prompt, { signal: abort.signal })) {
      if (chunk.text) timer ??= setTimeout(() => abort.abort(), 50);
    }
  } catch (error) {
    if (!abort.signal.aborted) throw error;
  }
  return left();
}

await run({ plain, stream, tools, structured, leave });
