/* An io_uring that sends: many sockets, one system call. */
#ifndef RING_H
#define RING_H

#include <stddef.h>
#include <stdint.h>

/* At most so many at a time. */
enum { BATCH = 1024 };

/* What goes to one socket. */
struct sending {
  int fd;
  const void *start;
  size_t length;
};

struct ring;

/* For the thread that calls it. NULL where the system has no io_uring or lets nobody use it; errno says why. */
struct ring *ring_open(void);

/*
 * Waits for no receiver: all are done when it returns. To `taken`, for each, how many bytes the kernel has taken, or the
 * negated error number.
 */
void ring_send(struct ring *ring, const struct sending *sendings, size_t count, int32_t *taken);

void ring_close(struct ring *ring);

#endif
