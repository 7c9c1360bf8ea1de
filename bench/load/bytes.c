#include "bytes.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void bytes_append(struct bytes *bytes, const void *start, size_t length) {
  if (bytes->length + length > bytes->capacity) {
    size_t capacity = bytes->capacity == 0 ? 256 : bytes->capacity;
    while (capacity < bytes->length + length) capacity *= 2;
    bytes->start = realloc(bytes->start, capacity);
    if (bytes->start == NULL) {
      fputs("out of memory\n", stderr);
      exit(3);
    }
    bytes->capacity = capacity;
  }
  memcpy(bytes->start + bytes->length, start, length);
  bytes->length += length;
}

/* Away from the front. */
void bytes_take(struct bytes *bytes, size_t length) {
  bytes->length -= length;
  memmove(bytes->start, bytes->start + length, bytes->length);
}

void bytes_free(struct bytes *bytes) {
  free(bytes->start);
  memset(bytes, 0, sizeof *bytes);
}
