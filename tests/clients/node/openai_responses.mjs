// The openai SDK, Responses.
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { WEATHER, left, run, weather } from "./client.mjs";

const connect = ({ url }) => new OpenAI({ baseURL: url, apiKey: "any" }).responses;

async function plain(order) {
  return { text: (await connect(order).create({ model: order.model, input: order.prompt })).output_text };
}

async function stream(order) {
  const events = connect(order).stream({ model: order.model, input: order.prompt });
  let pieces = 0;
  for await (const event of events) pieces += event.type === "response.output_text.delta";
  return { text: (await events.finalResponse()).output_text, pieces };
}

async function tools(order) {
  const offered = [{ type: "function", name: "weather", parameters: WEATHER, strict: true }];
  const input = [{ role: "user", content: order.prompt }];
  const ask = () => connect(order).create({ model: order.model, input, tools: offered, store: false });
  const first = await ask();
  const call = first.output.find((item) => item.type === "function_call");
  const given = JSON.parse(call.arguments);
  input.push(...first.output, { type: "function_call_output", call_id: call.call_id, output: weather(given) });
  return { tool: call.name, arguments: given, text: (await ask()).output_text };
}

async function structured(order) {
  const text = { format: zodTextFormat(z.object({ answer: z.int() }), "answer") };
  const answer = await connect(order).parse({ model: order.model, input: order.prompt, text });
  return { structured: answer.output_parsed };
}

async function leave(order) {
  const events = await connect(order).create({ model: order.model, input: order.prompt, stream: true });
  for await (const event of events) if (event.type === "response.output_text.delta") break;
  return left();
}

await run({ plain, stream, tools, structured, leave });
