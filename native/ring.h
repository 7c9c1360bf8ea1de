/* An io_uring that sends: many sockets, one system call. */
#ifndef RING_H
#define RING_H

#include "sending.h"

/* At most so many at a time. */
enum { BATCH = 1024 };

struct ring;

/* For the thread that calls it. NULL where the system has no io_uring or lets nobody use it; errno says why. */
struct ring *ring_open(void);

/* As send_each, in one system call: it waits for no receiver, and all are done when it returns. */
void ring_send(struct ring *ring, const struct sending *sendings, size_t count, int32_t *taken);

void ring_close(struct ring *ring);

#endif
