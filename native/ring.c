#define _GNU_SOURCE
#include "ring.h"
#include <errno.h>
#include <stdlib.h>

#ifdef __linux__
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#if __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#endif
#endif

/* Headers of Linux 5.6, where sends came, or newer. */
#if defined(IORING_FEAT_RW_CUR_POS) && defined(SYS_io_uring_enter)

/* Headers may be older than the kernel: these are of Linux 6.0 and 6.1. */
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

struct ring {
  int fd;
  void *queues;
  size_t queues_bytes;
  struct io_uring_sqe *entries;
  size_t entries_bytes;
  unsigned *tail;
  unsigned *head;
  unsigned mask;
  unsigned *done_head;
  unsigned *done_tail;
  unsigned done_mask;
  struct io_uring_cqe *done;
};

static int setup(struct io_uring_params *params, unsigned flags) {
  memset(params, 0, sizeof *params);
  params->flags = flags;
  return (int)syscall(SYS_io_uring_setup, BATCH, params);
}

static void *map(int fd, size_t bytes, off_t what) {
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, what);
  return memory == MAP_FAILED ? NULL : memory;
}

/* Both queues lie in one piece since Linux 5.4; sends came with 5.6, together with the other feature. */
static int map_all(struct ring *ring, const struct io_uring_params *params) {
  const unsigned needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_RW_CUR_POS;
  if ((params->features & needed) != needed) {
    errno = ENOSYS;
    return -1;
  }
  size_t sent = params->sq_off.array + params->sq_entries * sizeof(unsigned);
  size_t done = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
  ring->queues_bytes = sent > done ? sent : done;
  ring->entries_bytes = params->sq_entries * sizeof(struct io_uring_sqe);
  ring->queues = map(ring->fd, ring->queues_bytes, IORING_OFF_SQ_RING);
  if (ring->queues == NULL) return -1;
  ring->entries = map(ring->fd, ring->entries_bytes, IORING_OFF_SQES);
  if (ring->entries == NULL) return -1;
  char *queues = ring->queues;
  ring->tail = (unsigned *)(queues + params->sq_off.tail);
  ring->head = (unsigned *)(queues + params->sq_off.head);
  ring->mask = *(unsigned *)(queues + params->sq_off.ring_mask);
  ring->done_head = (unsigned *)(queues + params->cq_off.head);
  ring->done_tail = (unsigned *)(queues + params->cq_off.tail);
  ring->done_mask = *(unsigned *)(queues + params->cq_off.ring_mask);
  ring->done = (struct io_uring_cqe *)(queues + params->cq_off.cqes);
  unsigned *order = (unsigned *)(queues + params->sq_off.array);
  for (unsigned index = 0; index < params->sq_entries; index += 1) order[index] = index;
  return 0;
}

static long enter(const struct ring *ring, unsigned submitted, unsigned awaited) {
  return syscall(SYS_io_uring_enter, ring->fd, submitted, awaited, IORING_ENTER_GETEVENTS, NULL, 0);
}

struct ring *ring_open(void) {
  struct ring *ring = calloc(1, sizeof *ring);
  if (ring == NULL) return NULL;
  struct io_uring_params params;
  ring->fd = setup(&params, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
  /* Known since Linux 6.1. */
  if (ring->fd < 0 && errno == EINVAL) ring->fd = setup(&params, 0);
  /* Some seccomp profiles allow to set one up, and not to use it. */
  if (ring->fd >= 0 && map_all(ring, &params) == 0 && enter(ring, 0, 0) >= 0) return ring;
  int why = errno;
  ring_close(ring);
  errno = why;
  return NULL;
}

void ring_close(struct ring *ring) {
  if (ring->entries != NULL) munmap(ring->entries, ring->entries_bytes);
  if (ring->queues != NULL) munmap(ring->queues, ring->queues_bytes);
  if (ring->fd >= 0) close(ring->fd);
  free(ring);
}

static size_t take_done(struct ring *ring, int32_t *taken) {
  unsigned head = *ring->done_head;
  unsigned tail = __atomic_load_n(ring->done_tail, __ATOMIC_ACQUIRE);
  size_t count = tail - head;
  for (; head != tail; head += 1) {
    const struct io_uring_cqe *done = &ring->done[head & ring->done_mask];
    taken[done->user_data] = done->res;
  }
  __atomic_store_n(ring->done_head, head, __ATOMIC_RELEASE);
  return count;
}

void ring_send(struct ring *ring, const struct sending *sendings, size_t count, int32_t *taken) {
  unsigned tail = *ring->tail;
  for (size_t index = 0; index < count; index += 1) {
    struct io_uring_sqe *entry = &ring->entries[(tail + index) & ring->mask];
    memset(entry, 0, sizeof *entry);
    entry->opcode = IORING_OP_SEND;
    entry->fd = sendings[index].fd;
    entry->addr = (uintptr_t)sendings[index].start;
    entry->len = (unsigned)sendings[index].length;
    entry->msg_flags = SEND_FLAGS;
    entry->user_data = index;
    taken[index] = -EAGAIN;
  }
  __atomic_store_n(ring->tail, tail + (unsigned)count, __ATOMIC_RELEASE);
  size_t done = 0;
  while (done < count) {
    /* What it has not come to yet, it takes at the next call. */
    unsigned left = *ring->tail - __atomic_load_n(ring->head, __ATOMIC_ACQUIRE);
    long answer = enter(ring, left, (unsigned)(count - done));
    int why = errno;
    done += take_done(ring, taken);
    if (answer < 0 && why != EINTR) break;
  }
  unsigned head = __atomic_load_n(ring->head, __ATOMIC_ACQUIRE);
  /* It refuses to come to the rest. */
  size_t consumed = count - (*ring->tail - head);
  send_each(sendings + consumed, count - consumed, taken + consumed);
  __atomic_store_n(ring->tail, head, __ATOMIC_RELEASE);
}

#else

struct ring *ring_open(void) {
  errno = ENOSYS;
  return NULL;
}

void ring_send(struct ring *ring, const struct sending *sendings, size_t count, int32_t *taken) {
  (void)ring, (void)sendings, (void)count, (void)taken;
}

void ring_close(struct ring *ring) {
  (void)ring;
}

#endif
