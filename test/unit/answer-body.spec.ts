import { describe, expect, it } from 'vitest';
import { readBody, readJson } from '../../src/core/answer-body.js';

const PIECE = new Uint8Array(65_536).fill(0x20);

/** An answer of that many pieces of 64 KiB, and how many of them were asked for. */
function answerOf(pieces: number): { response: Response; sent: () => number; isCancelled: () => boolean } {
  let sent = 0;
  let isCancelled = false;
  const body = new ReadableStream<Uint8Array>({
    pull: (controller) => {
      if (sent === pieces) controller.close();
      else {
        sent += 1;
        controller.enqueue(PIECE);
      }
    },
    cancel: () => {
      isCancelled = true;
    },
  });
  return { response: new Response(body), sent: () => sent, isCancelled: () => isCancelled };
}

describe('the body of an answer', () => {
  it('is read as it came', async () => {
    expect((await readBody(new Response('ünïcode'))).toString()).toBe('ünïcode');
    expect(await readJson(new Response('{"allow":true}'))).toEqual({ allow: true });
    expect(await readBody(new Response(null))).toHaveLength(0);
  });

  it('may have one mebibyte', async () => {
    expect(await readBody(answerOf(16).response)).toHaveLength(1_048_576);
  });

  it('is refused as soon as it is longer, and the rest is not read', async () => {
    const { response, sent, isCancelled } = answerOf(Infinity);
    await expect(readBody(response)).rejects.toThrow('more than 1048576 bytes');
    expect(sent()).toBeLessThan(20);
    expect(isCancelled()).toBe(true);
  });

  it('is no JSON where it is none', async () => {
    await expect(readJson(new Response('yes'))).rejects.toBeInstanceOf(SyntaxError);
    await expect(readJson(new Response(null))).rejects.toBeInstanceOf(SyntaxError);
  });
});
