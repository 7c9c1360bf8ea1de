#define _GNU_SOURCE
#include "load.h"
#include <stdio.h>
#include <string.h>

enum { LONGEST_MESSAGE_BYTES = 70000 };

static const char *token_of(const struct load *load, const struct connection *connection) {
  return load->token_count == 0 ? NULL : load->tokens[connection->index % load->token_count];
}

size_t upgrade_request(const struct load *load, const struct connection *connection, char *out, size_t size) {
  const char *token = token_of(load, connection);
  int length = snprintf(out, size,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
                        load->options.path);
  if (token != NULL && load->options.dialect != SOCKETIO)
    length += snprintf(out + length, size - length, "Authorization: Bearer %s\r\n", token);
  length += snprintf(out + length, size - length, "\r\n");
  return (size_t)length;
}

/* The mask is zero, which is a mask like any other: the server unmasks all the same. */
void append_frame(struct bytes *out, int opcode, const char *payload, size_t length) {
  unsigned char header[14] = {(unsigned char)(0x80 | opcode)};
  size_t at = 2;
  if (length < 126) {
    header[1] = (unsigned char)(0x80 | length);
  } else if (length < 65536) {
    header[1] = 0x80 | 126;
    header[2] = (unsigned char)(length >> 8);
    header[3] = (unsigned char)length;
    at = 4;
  } else {
    header[1] = 0x80 | 127;
    for (int index = 0; index < 8; index += 1) header[2 + index] = (unsigned char)(length >> (8 * (7 - index)));
    at = 10;
  }
  bytes_append(out, header, at + 4);
  bytes_append(out, payload, length);
}

static void append_text(struct bytes *out, const char *text, int length) {
  append_frame(out, 1, text, (size_t)length);
}

void append_namespace(const struct load *load, const struct connection *connection, struct bytes *out) {
  char text[2048];
  const char *token = token_of(load, connection);
  int length = token == NULL ? snprintf(text, sizeof text, "40")
                             : snprintf(text, sizeof text, "40{\"token\":\"%s\"}", token);
  append_text(out, text, length);
}

void append_join(const struct load *load, const struct connection *connection, struct bytes *out) {
  char text[256];
  int length = 0;
  int room = connection->room;
  switch (load->options.dialect) {
    case FANFARE:
      if (connection->resumes) {
        length = snprintf(text, sizeof text,
                          "{\"type\":\"join_room\",\"room\":\"r%d\",\"last_event_id\":%lld,\"epoch\":\"%s\"}", room,
                          (long long)connection->position_id, connection->epoch);
        break;
      } /* fall through */
    case PLAIN:
      length = snprintf(text, sizeof text, "{\"type\":\"join_room\",\"room\":\"r%d\"}", room);
      break;
    case NEST:
      length = snprintf(text, sizeof text, "{\"event\":\"join_room\",\"data\":{\"room\":\"r%d\"}}", room);
      break;
    case SOCKETIO:
      length = snprintf(text, sizeof text, "420[\"join_room\",{\"room\":\"r%d\"}]", room);
      break;
  }
  append_text(out, text, length);
}

/* The content is `@<nanoseconds>@` and padding: a receiver that is sampled finds the time in it. */
void append_event(const struct load *load, const struct connection *connection, struct bytes *out) {
  static char padding[LONGEST_MESSAGE_BYTES];
  static char text[LONGEST_MESSAGE_BYTES + 256];
  if (padding[0] == 0) memset(padding, 'x', sizeof padding);
  char content[LONGEST_MESSAGE_BYTES + 1];
  int stamp = snprintf(content, sizeof content, "@%019lld@", (long long)now_ns());
  int bytes = load->options.content_bytes;
  if (bytes > stamp) memcpy(content + stamp, padding, (size_t)(bytes - stamp));
  int room = connection->room;
  int length = 0;
  switch (load->options.dialect) {
    case FANFARE:
    case PLAIN:
      length = snprintf(text, sizeof text, "{\"type\":\"room_message\",\"room\":\"r%d\",\"content\":\"%.*s\"}", room,
                        bytes, content);
      break;
    case NEST:
      length = snprintf(text, sizeof text,
                        "{\"event\":\"room_message\",\"data\":{\"room\":\"r%d\",\"content\":\"%.*s\"}}", room, bytes,
                        content);
      break;
    case SOCKETIO:
      length = snprintf(text, sizeof text, "42[\"room_message\",{\"room\":\"r%d\",\"content\":\"%.*s\"}]", room, bytes,
                        content);
      break;
  }
  append_text(out, text, length);
}
