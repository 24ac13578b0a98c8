// What the official npm client makes of the gateway: `node ask.mjs BASE_URL KEY MODEL` prints one line of JSON.
import OpenAI, { toFile } from "openai";

const [baseURL, apiKey, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 20_000 });
const messages = [{ role: "user", content: "Describe the rare golden key." }];

const whole = await client.chat.completions.create({ model, messages });

const streamed = { text: "", chunks: 0, usage: null };
const options = { include_usage: true };
for await (const chunk of await client.chat.completions.create({ model, messages, stream: true, stream_options: options })) {
  streamed.text += chunk.choices[0]?.delta?.content ?? "";
  streamed.chunks += 1;
  streamed.usage = chunk.usage ?? streamed.usage;
}

const models = [];
for await (const one of client.models.list()) models.push(one.id);

const refused = await client.chat.completions.create({ model: "nobody", messages }).catch((error) => error);

const line = { custom_id: "one", method: "POST", url: "/v1/chat/completions", body: { model, messages, max_tokens: 8 } };
const input = await toFile(Buffer.from(JSON.stringify(line)), "in.jsonl");
const file = await client.files.create({ file: input, purpose: "batch" });
let batch = await client.batches.create({
  input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h", metadata: { from: "npm" },
});
while (!["completed", "failed", "expired", "cancelled"].includes(batch.status)) {
  await new Promise((resolve) => setTimeout(resolve, 100));
  batch = await client.batches.retrieve(batch.id);
}
const output = await (await client.files.content(batch.output_file_id)).text();
const listed = [];
for await (const one of client.batches.list({ limit: 1 })) listed.push(one.id);

console.log(
  JSON.stringify({
    batch: { status: batch.status, counts: batch.request_counts, metadata: batch.metadata, listed: listed.includes(batch.id) },
    row: JSON.parse(output),
    whole: { text: whole.choices[0].message.content, usage: whole.usage },
    streamed,
    models,
    refused: { name: refused.constructor.name, status: refused.status, code: refused.code },
  }),
);
