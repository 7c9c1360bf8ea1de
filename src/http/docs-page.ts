interface Operation {
  summary?: string;
  description?: string;
  parameters?: { name?: string; in?: string; required?: boolean; description?: string }[];
  requestBody?: { content?: Record<string, { example?: unknown; schema?: unknown }> };
  responses?: Record<string, { description?: string; $ref?: string }>;
}

export interface OpenApi {
  info?: { title?: string; version?: string; description?: string };
  paths?: Record<string, Record<string, Operation>>;
  components?: { schemas?: Record<string, unknown> };
}

const METHODS = ['get', 'put', 'post', 'delete'];

const STYLE = `
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #8886; padding: .5rem 0 1rem; }
h2 code { font-size: 1.05rem; }
.method { text-transform: uppercase; font-weight: 700; margin-right: .5rem; }
table { border-collapse: collapse; }
td { padding: .15rem 1rem .15rem 0; vertical-align: top; }
pre { overflow-x: auto; background: #8882; padding: .75rem; border-radius: .4rem; }`;

/** The HTTP API as one page that needs nothing from anywhere else. */
export function docsPage(api: OpenApi): string {
  const title = escape(api.info?.title ?? 'HTTP API');
  const operations = Object.entries(api.paths ?? {}).flatMap(([path, methods]) =>
    METHODS.flatMap((method) => {
      const operation = methods[method];
      return operation === undefined ? [] : [section(method, path, operation)];
    }),
  );
  const schemas = Object.entries(api.components?.schemas ?? {}).map(
    ([name, schema]) => `<section><h3 id="${escape(name)}">${escape(name)}</h3>${json(schema)}</section>`,
  );
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>${title}</title>
<meta name="viewport" content="width=device-width"><style>${STYLE}</style></head><body>
<h1>${title} ${escape(api.info?.version ?? '')}</h1><p>${paragraphs(api.info?.description)}</p>
<p><a href="openapi.yaml">openapi.yaml</a> · <a href="asyncapi.yaml">asyncapi.yaml</a></p>
${operations.join('\n')}<h2>Schemas</h2>${schemas.join('\n')}</body></html>`;
}

function section(method: string, path: string, operation: Operation): string {
  const { summary, description, parameters = [], requestBody, responses = {} } = operation;
  const inputs = parameters.filter(({ name }) => name !== undefined);
  const body = Object.values(requestBody?.content ?? {})[0];
  return `<section><h2><span class="method">${method}</span><code>${escape(path)}</code></h2>
<p><strong>${escape(summary ?? '')}</strong></p><p>${paragraphs(description)}</p>
${inputs.length === 0 ? '' : `<table>${inputs.map((input) => row(`${input.name ?? ''} (${input.in ?? ''})`, input.description)).join('')}</table>`}
${body === undefined ? '' : json(body.example ?? body.schema)}
<table>${Object.entries(responses)
    .map(([status, response]) => row(status, response.description ?? response.$ref?.split('/').at(-1)))
    .join('')}</table></section>`;
}

function row(name: string, text: string | undefined): string {
  return `<tr><td><code>${escape(name)}</code></td><td>${escape(text ?? '')}</td></tr>`;
}

function json(value: unknown): string {
  return `<pre>${escape(JSON.stringify(value, null, 2) ?? '')}</pre>`;
}

function paragraphs(text: string | undefined): string {
  return escape(text ?? '').replace(/\n\s*\n/g, '</p><p>');
}

function escape(text: string): string {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
