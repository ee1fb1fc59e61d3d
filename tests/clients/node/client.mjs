// What the scripts of Node clients share: one order from the command line, one answer as a line of JSON.
// tests/clients/order.py says what each feature is to do.

export const WEATHER = {
  type: "object",
  properties: { place: { type: "string", description: "a town" } },
  required: ["place"],
  additionalProperties: false,
};
export const ANSWER = {
  type: "object",
  properties: { answer: { type: "integer" } },
  required: ["answer"],
  additionalProperties: false,
};

export const weather = ({ place }) => `sunny in ${place}`;

// Carry out the order with the function that is called as its feature.
export async function run(features) {
  const order = JSON.parse(process.argv[2]);
  let answer;
  try {
    answer = await features[order.feature](order);
  } catch (error) {
    console.error(error);
    answer = { error: `${error.name}: ${error.message}` };
  }
  say(answer);
}

function say(answer) {
  process.stdout.write("\n" + JSON.stringify(answer) + "\n");
}

// Say that the stream is closed, and wait to be dismissed.
export async function left() {
  say({ left: true });
  for await (const _ of process.stdin);
  return {};
}
