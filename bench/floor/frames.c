#define _GNU_SOURCE
#include "floor.h"
#include <string.h>

enum { TEXT = 1, CLOSE = 8, MASKED = 0x80, MASK_BYTES = 4 };

static void append_header(struct bytes *out, size_t length) {
  unsigned char header[10] = {0x80 | TEXT, (unsigned char)length};
  size_t extended = length < 126 ? 0 : length < 65536 ? 2 : 8;
  if (extended > 0) header[1] = extended == 2 ? 126 : 127;
  for (size_t index = 0; index < extended; index += 1)
    header[2 + index] = (unsigned char)(length >> (8 * (extended - 1 - index)));
  bytes_append(out, header, 2 + extended);
}

/* `{"event":"chat","room":"r7","content":"…"}`: from the room on it is the text of the client. */
static void append_event(struct bytes *out, const char *start, const char *rest, size_t length) {
  append_header(out, strlen(start) + length);
  bytes_append(out, start, strlen(start));
  bytes_append(out, rest, length);
}

static bool begins(const char *text, size_t length, const char *start) {
  return length >= strlen(start) && memcmp(text, start, strlen(start)) == 0;
}

/* `{"type":"join_room","room":"r7"}` or `{"type":"room_message","room":"r7","content":"…"}`, in this order. */
static void message(struct connection *connection, const char *text, size_t length) {
  static const char ROOM[] = "\"room\":\"";
  const char *rest = memmem(text, length, ROOM, sizeof ROOM - 1);
  if (rest == NULL) return;
  size_t rest_length = length - (size_t)(rest - text);
  const char *name = rest + sizeof ROOM - 1;
  const char *name_end = memchr(name, '"', rest_length - (sizeof ROOM - 1));
  if (name_end == NULL) return;
  struct room *room = room_named(name, (size_t)(name_end - name));
  if (begins(text, length, "{\"type\":\"room_message\""))
    return append_event(room_due(room), "{\"event\":\"chat\",", rest, rest_length);
  if (!begins(text, length, "{\"type\":\"join_room\"")) return;
  struct bytes out = {0};
  room_join(room, connection);
  append_event(&out, "{\"event\":\"joined_room\",", rest, rest_length);
  connection_send(connection, out.start, out.length);
  bytes_free(&out);
}

ssize_t frames_read(struct connection *connection, char *start, size_t total) {
  size_t at = 0;
  while (total - at >= 2) {
    const unsigned char *head = (const unsigned char *)start + at;
    size_t rest = total - at;
    uint64_t length = head[1] & 127;
    size_t extended = length < 126 ? 0 : length == 126 ? 2 : 8;
    size_t header = 2 + extended + MASK_BYTES;
    int opcode = head[0] & 15;
    if (opcode == CLOSE || (head[1] & MASKED) == 0) return -1;
    if (rest < header) break;
    if (extended > 0) length = 0;
    for (size_t index = 0; index < extended; index += 1) length = length << 8 | head[2 + index];
    if (rest - header < length) break;
    char *payload = start + at + header;
    const char *mask = payload - MASK_BYTES;
    for (size_t index = 0; index < length; index += 1) payload[index] ^= mask[index % MASK_BYTES];
    if (opcode == TEXT) message(connection, payload, (size_t)length);
    at += header + (size_t)length;
  }
  return (ssize_t)at;
}
