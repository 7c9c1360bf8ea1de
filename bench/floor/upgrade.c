#define _GNU_SOURCE
#include "floor.h"
#include <stdio.h>
#include <string.h>

enum { KEY_BYTES = 24, ACCEPT_BYTES = 28 };

static const char NAME[] = "\r\nSec-WebSocket-Key: ";
static const char MAGIC[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/* Base64 of the digest and one byte of zero, whose last character is the padding. */
static void accept_of(const char *key, char accept[ACCEPT_BYTES + 1]) {
  static const char LETTERS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  char text[KEY_BYTES + sizeof MAGIC];
  unsigned char digest[SHA1_BYTES + 1] = {0};
  sha1(text, (size_t)snprintf(text, sizeof text, "%.*s%s", KEY_BYTES, key, MAGIC), digest);
  for (int at = 0; at < ACCEPT_BYTES; at += 4) {
    const unsigned char *three = digest + at / 4 * 3;
    uint32_t bits = (uint32_t)three[0] << 16 | (uint32_t)three[1] << 8 | three[2];
    for (int index = 0; index < 4; index += 1) accept[at + index] = LETTERS[bits >> (18 - 6 * index) & 63];
  }
  accept[ACCEPT_BYTES - 1] = '=';
  accept[ACCEPT_BYTES] = 0;
}

ssize_t upgrade_read(struct connection *connection, const char *text, size_t length) {
  const char *end = memmem(text, length, "\r\n\r\n", 4);
  if (end == NULL) return 0;
  const char *name = memmem(text, (size_t)(end - text), NAME, sizeof NAME - 1);
  if (name == NULL || end - name < (ssize_t)sizeof NAME - 1 + KEY_BYTES) return -1;
  char accept[ACCEPT_BYTES + 1];
  char answer[256];
  accept_of(name + sizeof NAME - 1, accept);
  int answer_length = snprintf(answer, sizeof answer,
                               "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                               "Sec-WebSocket-Accept: %s\r\n\r\n",
                               accept);
  connection->is_upgraded = true;
  connection_send(connection, answer, (size_t)answer_length);
  return end + 4 - text;
}
