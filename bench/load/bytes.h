#ifndef BYTES_H
#define BYTES_H

#include <stddef.h>

/* Bytes that grow; all zero is empty. */
struct bytes {
  char *start;
  size_t length;
  size_t capacity;
};

void bytes_append(struct bytes *bytes, const void *start, size_t length);
void bytes_take(struct bytes *bytes, size_t length);
void bytes_free(struct bytes *bytes);

#endif
