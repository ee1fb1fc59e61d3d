// The anthropic SDK.
import Anthropic from "@anthropic-ai/sdk";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { z } from "zod";
import { WEATHER, left, run, weather } from "./client.mjs";

const connect = ({ url }) => new Anthropic({ baseURL: url, apiKey: "any" }).messages;
const asked = ({ model, prompt }) => ({ model, max_tokens: 1000, messages: [{ role: "user", content: prompt }] });
const textOf = ({ content }) => content.filter((block) => block.type === "text").map(({ text }) => text).join("");

async function plain(order) {
  return { text: textOf(await connect(order).create(asked(order))) };
}

async function stream(order) {
  let pieces = 0;
  const events = connect(order).stream(asked(order)).on("text", () => pieces++);
  return { text: textOf(await events.finalMessage()), pieces };
}

async function tools(order) {
  const request = asked(order);
  request.tools = [{ name: "weather", description: "The weather.", input_schema: WEATHER }];
  const first = await connect(order).create(request);
  const call = first.content.find((block) => block.type === "tool_use");
  const result = { type: "tool_result", tool_use_id: call.id, content: weather(call.input) };
  request.messages.push({ role: "assistant", content: first.content }, { role: "user", content: [result] });
  return { tool: call.name, arguments: call.input, text: textOf(await connect(order).create(request)) };
}

async function structured(order) {
  const output_config = { format: zodOutputFormat(z.object({ answer: z.int() })) };
  const answer = await connect(order).parse({ ...asked(order), output_config });
  return { structured: answer.parsed_output };
}

async function leave(order) {
  const events = await connect(order).create({ ...asked(order), stream: true });
  for await (const event of events) if (event.type === "content_block_delta") break;
  return left();
}

await run({ plain, stream, tools, structured, leave });
