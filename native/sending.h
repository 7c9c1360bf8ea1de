/* What goes to one socket, and how it goes there by itself. */
#ifndef SENDING_H
#define SENDING_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#ifndef MSG_NOSIGNAL /* macOS, where Node ignores the signal */
#define MSG_NOSIGNAL 0
#endif

/* Without MSG_DONTWAIT a socket that is full would be waited for, and the memory with it. */
enum { SEND_FLAGS = MSG_NOSIGNAL | MSG_DONTWAIT };

struct sending {
  int fd;
  const void *start;
  size_t length;
};

/* To `taken`, for each, how many bytes the kernel has taken, or the negated error number. */
void send_each(const struct sending *sendings, size_t count, int32_t *taken);

#endif
