// The openai SDK, chat completions.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { WEATHER, left, run, weather } from "./client.mjs";

const connect = ({ url }) => new OpenAI({ baseURL: url, apiKey: "any" }).chat.completions;
const said = ({ prompt }) => [{ role: "user", content: prompt }];

async function plain(order) {
  const answer = await connect(order).create({ model: order.model, messages: said(order) });
  return { text: answer.choices[0].message.content };
}

async function stream(order) {
  const pieces = [];
  for await (const chunk of await connect(order).create({ model: order.model, messages: said(order), stream: true })) {
    if (chunk.choices[0]?.delta.content) pieces.push(chunk.choices[0].delta.content);
  }
  return { text: pieces.join(""), pieces: pieces.length };
}

async function tools(order) {
  const offered = [{ type: "function", function: { name: "weather", parameters: WEATHER, strict: true } }];
  const messages = said(order);
  const ask = () => connect(order).create({ model: order.model, messages, tools: offered });
  const first = (await ask()).choices[0].message;
  const call = first.tool_calls[0];
  const given = JSON.parse(call.function.arguments);
  messages.push(first, { role: "tool", tool_call_id: call.id, content: weather(given) });
  return { tool: call.function.name, arguments: given, text: (await ask()).choices[0].message.content };
}

async function structured(order) {
  const format = zodResponseFormat(z.object({ answer: z.int() }), "answer");
  const answer = await connect(order).parse({ model: order.model, messages: said(order), response_format: format });
  return { structured: answer.choices[0].message.parsed };
}

async function leave(order) {
  const chunks = await connect(order).create({ model: order.model, messages: said(order), stream: true });
  for await (const chunk of chunks) if (chunk.choices[0]?.delta.content) break;
  return left();
}

await run({ plain, stream, tools, structured, leave });
