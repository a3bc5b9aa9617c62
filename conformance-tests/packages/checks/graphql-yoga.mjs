import { createSchema, createYoga } from "graphql-yoga";

const yoga = createYoga({
  schema: createSchema({ typeDefs: "type Query { hello(name: String!): String! }", resolvers: { Query: { hello: (_, { name }) => `hello ${name}` } } }),
  graphqlEndpoint: "/graphql",
  logging: false,
});

export default {
  async fetch(request, env, ctx) {
    if (new URL(request.url).pathname === "/graphql") return yoga.fetch(request, ctx);
    const asked = { method: "POST", body: JSON.stringify({ query: '{ hello(name: "x") }' }), headers: { "content-type": "application/json" } };
    const answer = await yoga.fetch(new Request("http://local.example/graphql", asked), ctx);
    const text = await answer.text();
    return new Response(text === '{"data":{"hello":"hello x"}}' ? "ok" : text);
  },
};
