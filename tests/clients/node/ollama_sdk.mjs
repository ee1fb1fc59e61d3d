// The ollama SDK; with the variant "generate", its older call.
import { Ollama } from "ollama";
import { ANSWER, WEATHER, left, run, weather } from "./client.mjs";

function ask({ url, model, prompt, variant }, more = {}) {
  const client = new Ollama({ host: url });
  if (variant === "generate") return client.generate({ model, prompt, ...more });
  return client.chat({ model, messages: [{ role: "user", content: prompt }], ...more });
}

const textOf = (answer) => (answer.message ? answer.message.content : answer.response);

async function plain(order) {
  return { text: textOf(await ask(order)) };
}

async function stream(order) {
  const pieces = [];
  for await (const part of await ask(order, { stream: true })) if (textOf(part)) pieces.push(textOf(part));
  return { text: pieces.join(""), pieces: pieces.length };
}

async function tools({ url, model, prompt }) {
  const client = new Ollama({ host: url });
  const offered = [{ type: "function", function: { name: "weather", description: "The weather.", parameters: WEATHER } }];
  const messages = [{ role: "user", content: prompt }];
  const first = (await client.chat({ model, messages, tools: offered })).message;
  const call = first.tool_calls[0].function;
  messages.push(first, { role: "tool", tool_name: call.name, content: weather(call.arguments) });
  const second = await client.chat({ model, messages, tools: offered });
  return { tool: call.name, arguments: call.arguments, text: second.message.content };
}

async function structured(order) {
  return { structured: JSON.parse(textOf(await ask(order, { format: ANSWER }))) };
}

async function leave(order) {
  const parts = await ask(order, { stream: true });
  for await (const part of parts) {
    if (textOf(part)) {
      parts.abort();
      break;
    }
  }
  return left();
}

await run({ plain, stream, tools, structured, leave });
