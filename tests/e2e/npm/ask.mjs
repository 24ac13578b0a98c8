// What the official npm client makes of the gateway: `node ask.mjs BASE_URL KEY MODEL` prints one line of JSON.
import OpenAI from "openai";

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

console.log(
  JSON.stringify({
    whole: { text: whole.choices[0].message.content, usage: whole.usage },
    streamed,
    models,
    refused: { name: refused.constructor.name, status: refused.status, code: refused.code },
  }),
);
