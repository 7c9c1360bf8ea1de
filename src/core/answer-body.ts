/** More than that no answer to the gateway's own requests has to say. */
const MAX_BYTES = 1_048_576;

/**
 * The body of another server's answer. Rejects when it is longer than 1 MiB, and with whatever ends the reading: one who
 * sends without end must not fill our memory.
 */
export async function readBody({ body }: Response): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  // Leaving the loop early cancels the rest.
  for await (const piece of body ?? []) {
    bytes += piece.length;
    if (bytes > MAX_BYTES) throw new Error(`an answer of more than ${MAX_BYTES} bytes`);
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

/** The same, as JSON. */
export async function readJson(response: Response): Promise<unknown> {
  return JSON.parse((await readBody(response)).toString('utf8'));
}
