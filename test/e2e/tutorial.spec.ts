import wsRequest from 'superwstest';
import { describe, expect, it } from 'vitest';
import { serve } from '../support/gateway.js';
import { stats } from '../support/http.js';
import { secret, token } from '../support/tokens.js';
import { chatTutorial, textTutorial } from '../support/tutorials.js';

interface Event {
  event: string;
  [field: string]: unknown;
}

const is = (fields: Partial<Event>) => (event: Event) => expect(event).toMatchObject(fields);

describe('the tutorials', () => {
  const gateway = serve({ JWT_SECRET: secret, PRESENCE_GRACE_MS: '0' });

  it('chat: anonymous users, rooms and direct messages, and nothing is left behind', async () => {
    await chatTutorial(gateway(), gateway());
    expect((await stats(gateway().url)).local_connections).toBe(0);
  });

  it('text: plain text from /ws/:userId and a token on /ws/secure', async () => {
    await textTutorial(gateway(), gateway(), token('admin'));
    expect((await stats(gateway().url)).local_connections).toBe(0);
  });

  it('a client of another make follows them step by step', async () => {
    await wsRequest(gateway().url)
      .ws('/ws?client_id=carol')
      .expectJson(is({ event: 'connected', user_id: 'carol' }))
      .sendJson({ type: 'join_room', room: 'lobby', ref: 'a' })
      .expectJson(is({ event: 'joined_room', room: 'lobby', ref: 'a' }))
      .expectJson(is({ event: 'user_joined', user_id: 'carol', room: 'lobby' }))
      .sendJson({ type: 'room_message', room: 'lobby', content: 'hi' })
      .expectJson(is({ event: 'chat', from: 'carol', room: 'lobby', content: 'hi' }))
      .sendText('no JSON')
      .expectJson(is({ event: 'error', code: 'invalid_json' }))
      .close(1000)
      .expectClosed(1000);
    expect.assertions(5);
  });

  it('the secure endpoint wants a token', async () => {
    await wsRequest(gateway().url).ws('/ws/secure').expectConnectionError(401);
    await wsRequest(gateway().url).ws('/ws/secure?token=wrong').expectConnectionError(401);
    await wsRequest(gateway().url)
      .ws('/ws/secure')
      .set('Authorization', `Bearer ${token('admin')}`)
      .expectJson(is({ event: 'connected', user_id: 'admin' }))
      .close();
    expect.assertions(1);
  });
});
