/* Sends to many sockets in one call; src/sockets/native-writes.ts is who calls, and says what is what. */
#define NAPI_VERSION 8
#include "ring.h"
#include <errno.h>
#include <node_api.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An Int32Array of the caller's, of BATCH elements; the reference keeps its memory where it is. */
struct numbers {
  int32_t *start;
  napi_ref reference;
};

struct writes {
  struct ring *ring; /* NULL: a send() for each socket */
  struct numbers fds;
  struct numbers piece_of;
  struct numbers taken;
  struct sending sendings[BATCH];
};

static napi_value refuse(napi_env env, const char *why) {
  napi_throw_error(env, NULL, why);
  return NULL;
}

/* (count, pieces) => how many were not taken whole */
static napi_value send_all(napi_env env, napi_callback_info info) {
  size_t argument_count = 2;
  napi_value arguments[2];
  struct writes *writes;
  int32_t count = 0;
  if (napi_get_cb_info(env, info, &argument_count, arguments, NULL, (void **)&writes) != napi_ok ||
      argument_count != 2 || napi_get_value_int32(env, arguments[0], &count) != napi_ok || count < 0 || count > BATCH)
    return refuse(env, "send(count, pieces) wants a count up to BATCH");
  int32_t at = 0;
  while (at < count) {
    int32_t piece = writes->piece_of.start[at];
    napi_value buffer;
    void *start;
    size_t length;
    if (napi_get_element(env, arguments[1], (uint32_t)piece, &buffer) != napi_ok ||
        napi_get_buffer_info(env, buffer, &start, &length) != napi_ok || length > INT32_MAX)
      return refuse(env, "send(count, pieces) wants Buffers below 2 GiB");
    for (; at < count && writes->piece_of.start[at] == piece; at += 1)
      writes->sendings[at] = (struct sending){.fd = writes->fds.start[at], .start = start, .length = length};
  }
  int32_t *taken = writes->taken.start;
  /* For one socket the ring is a detour. */
  if (writes->ring == NULL || count == 1) send_each(writes->sendings, (size_t)count, taken);
  else ring_send(writes->ring, writes->sendings, (size_t)count, taken);
  int32_t left = 0;
  for (int32_t index = 0; index < count; index += 1)
    if (taken[index] != (int32_t)writes->sendings[index].length) left += 1;
  napi_value result;
  return napi_create_int32(env, left, &result) == napi_ok ? result : NULL;
}

static bool keep(napi_env env, napi_value value, struct numbers *numbers) {
  napi_typedarray_type type;
  size_t length;
  napi_value memory;
  size_t offset;
  return napi_get_typedarray_info(env, value, &type, &length, (void **)&numbers->start, &memory, &offset) == napi_ok &&
         type == napi_int32_array && length >= BATCH &&
         napi_create_reference(env, value, 1, &numbers->reference) == napi_ok;
}

static void writes_close(napi_env env, void *data, void *hint) {
  (void)hint;
  struct writes *writes = data;
  struct numbers *kept[] = {&writes->fds, &writes->piece_of, &writes->taken};
  for (size_t index = 0; index < sizeof kept / sizeof kept[0]; index += 1)
    if (kept[index]->reference != NULL) napi_delete_reference(env, kept[index]->reference);
  if (writes->ring != NULL) ring_close(writes->ring);
  free(writes);
}

/* (fds, pieceOf, taken, withRing) => send */
static napi_value open_writes(napi_env env, napi_callback_info info) {
  size_t argument_count = 4;
  napi_value arguments[4];
  bool with_ring;
  if (napi_get_cb_info(env, info, &argument_count, arguments, NULL, NULL) != napi_ok || argument_count != 4 ||
      napi_get_value_bool(env, arguments[3], &with_ring) != napi_ok)
    return refuse(env, "open(fds, pieceOf, taken, withRing) wants four arguments");
  struct writes *writes = calloc(1, sizeof *writes);
  if (writes == NULL) return refuse(env, "no memory");
  if (!keep(env, arguments[0], &writes->fds) || !keep(env, arguments[1], &writes->piece_of) ||
      !keep(env, arguments[2], &writes->taken)) {
    writes_close(env, writes, NULL);
    return refuse(env, "open(fds, pieceOf, taken, withRing) wants Int32Arrays of BATCH elements");
  }
  if (with_ring) {
    writes->ring = ring_open();
    if (writes->ring == NULL) {
      char why[128];
      snprintf(why, sizeof why, "no io_uring: %s", strerror(errno));
      writes_close(env, writes, NULL);
      return refuse(env, why);
    }
  }
  napi_value send;
  if (napi_create_function(env, "send", NAPI_AUTO_LENGTH, send_all, writes, &send) != napi_ok ||
      napi_add_finalizer(env, send, writes, writes_close, NULL, NULL) != napi_ok) {
    writes_close(env, writes, NULL);
    return refuse(env, "no function can be made");
  }
  return send;
}

NAPI_MODULE_INIT() {
  napi_value open;
  napi_value batch;
  if (napi_create_function(env, "open", NAPI_AUTO_LENGTH, open_writes, NULL, &open) != napi_ok ||
      napi_set_named_property(env, exports, "open", open) != napi_ok ||
      napi_create_int32(env, BATCH, &batch) != napi_ok ||
      napi_set_named_property(env, exports, "BATCH", batch) != napi_ok)
    return refuse(env, "no exports can be made");
  return exports;
}
