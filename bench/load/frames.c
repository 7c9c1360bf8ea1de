#define _GNU_SOURCE
#include "load.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT = 1, CLOSE = 8, PING = 9, PONG = 10 };

static bool contains(const char *text, size_t length, const char *word) {
  return memmem(text, length, word, strlen(word)) != NULL;
}

static void send_one(struct load *load, struct connection *connection,
                     void (*append)(const struct load *, const struct connection *, struct bytes *)) {
  struct bytes out = {0};
  append(load, connection, &out);
  connection_send(load, connection, &out);
  bytes_free(&out);
}

static void answer(struct load *load, struct connection *connection, int opcode, const char *text, size_t length) {
  struct bytes out = {0};
  append_frame(&out, opcode, text, length);
  connection_send(load, connection, &out);
  bytes_free(&out);
}

/* The text after `"name":`, of a JSON object that is known to have it. */
static const char *field(const char *text, size_t length, const char *name) {
  const char *at = memmem(text, length, name, strlen(name));
  return at == NULL ? NULL : at + strlen(name);
}

static void read_position(struct connection *connection, const char *text, size_t length) {
  const char *id = field(text, length, "\"last_event_id\":");
  const char *epoch = field(text, length, "\"epoch\":\"");
  if (id != NULL) connection->position_id = strtoll(id, NULL, 10);
  if (epoch != NULL) {
    const char *end = memchr(epoch, '"', length - (size_t)(epoch - text));
    if (end != NULL) snprintf(connection->epoch, EPOCH_BYTES, "%.*s", (int)(end - epoch), epoch);
  }
}

static void joined(struct load *load, struct connection *connection, const char *text, size_t length) {
  if (connection->resumes) {
    if (!contains(text, length, "\"recovered\":true")) {
      load->unrecovered += 1;
      went_wrong(load, "not recovered", text, length);
      connection_is_ready(load, connection);
    } else {
      connection->state = REPLAYING;
    }
    return;
  }
  read_position(connection, text, length);
  connection_is_ready(load, connection);
}

static void handshake_text(struct load *load, struct connection *connection, const char *text, size_t length) {
  enum dialect dialect = load->options.dialect;
  switch (connection->state) {
    case AWAIT_HELLO:
      if (dialect == SOCKETIO && text[0] == '0') {
        connection->state = AWAIT_NAMESPACE;
        send_one(load, connection, append_namespace);
      } else if (dialect == FANFARE && contains(text, length, "\"connected\"")) {
        connection->state = AWAIT_JOINED;
        send_one(load, connection, append_join);
      }
      return;
    case AWAIT_NAMESPACE:
      if (length >= 2 && memcmp(text, "40", 2) == 0) {
        connection->state = AWAIT_JOINED;
        send_one(load, connection, append_join);
      } else if (length >= 2 && memcmp(text, "44", 2) == 0) {
        load->refused += 1;
        went_wrong(load, "refused", text, length);
        connection_end(load, connection);
      }
      return;
    case AWAIT_JOINED:
      if (contains(text, length, "joined_room") || (dialect == SOCKETIO && length >= 3 && memcmp(text, "430", 3) == 0))
        joined(load, connection, text, length);
      return;
    default:
      return;
  }
}

static void delivery(struct load *load, struct connection *connection) {
  load->delivered += 1;
  connection->came += 1;
  if (connection->state == REPLAYING && ++connection->replayed >= load->options.behind_events)
    connection_is_ready(load, connection);
}

static void sample(struct load *load, struct connection *connection, const char *text, size_t length) {
  const char *stamp = memchr(text, '@', length);
  if (stamp == NULL || !load->counts_latency) return;
  latency_add((connection->heard_ns - strtoll(stamp + 1, NULL, 10)) / 1000);
}

/* A frame that is here as a whole: all of a handshake, all of a sampled connection, and short ones. */
static void whole_frame(struct load *load, struct connection *connection, int opcode, const char *text,
                        size_t length) {
  if (opcode == PING) return answer(load, connection, PONG, text, length);
  if (opcode == CLOSE) {
    char why[32];
    int code = length >= 2 ? (unsigned char)text[0] << 8 | (unsigned char)text[1] : 1005;
    snprintf(why, sizeof why, "closed with %d", code);
    went_wrong(load, why, text + 2, length >= 2 ? length - 2 : 0);
    load->closed += 1;
    return connection_end(load, connection);
  }
  if (opcode != TEXT) return;
  if (load->options.dialect == SOCKETIO && length == 1 && text[0] == '2')
    return answer(load, connection, TEXT, "3", 1);
  if (load->options.dialect == FANFARE && length == 15 && memcmp(text, "{\"type\":\"ping\"}", 15) == 0)
    return answer(load, connection, TEXT, "{\"type\":\"pong\"}", 15);
  if (connection->state < REPLAYING) return handshake_text(load, connection, text, length);
  if (length >= (size_t)load->options.content_bytes) {
    delivery(load, connection);
    if (connection->is_sampled) sample(load, connection, text, length);
    return;
  }
  load->other_frames += 1;
  if (contains(text, length, "\"error\"") || contains(text, length, "\"exception\"")) {
    load->errors += 1;
    went_wrong(load, "error", text, length);
  }
}

/* Goes from header to header. Payloads of events are stepped over, unless the connection is sampled. */
void frames_read(struct load *load, struct connection *connection, char *start, size_t total) {
  size_t at = 0;
  while (connection->state != ENDED && at < total) {
    size_t rest = total - at;
    if (connection->skip_bytes > 0) {
      size_t step = connection->skip_bytes < rest ? (size_t)connection->skip_bytes : rest;
      connection->skip_bytes -= step;
      at += step;
      continue;
    }
    const unsigned char *head = (const unsigned char *)start + at;
    if (rest < 2) break;
    size_t header = head[1] < 126 ? 2 : head[1] == 126 ? 4 : 10;
    if (rest < header) break;
    uint64_t length = head[1];
    if (header > 2) {
      length = 0;
      for (size_t index = 2; index < header; index += 1) length = length << 8 | head[index];
    }
    int opcode = head[0] & 15;
    bool is_event = opcode == TEXT && length >= (uint64_t)load->options.content_bytes;
    if (is_event && !connection->is_sampled && connection->state >= REPLAYING) {
      delivery(load, connection);
      at += header;
      connection->skip_bytes = length;
      continue;
    }
    if (rest < header + length) break;
    whole_frame(load, connection, opcode, start + at + header, (size_t)length);
    at += header + (size_t)length;
  }
  connection->kept.length = 0;
  if (connection->state != ENDED && at < total) bytes_append(&connection->kept, start + at, total - at);
}
