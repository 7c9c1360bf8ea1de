/*
 * The floor: what the kernel takes for a message to every member of a room. One thread, one epoll, no Redis. It knows
 * the `plain` dialect as the load program speaks it, and checks nothing that it can do without.
 */
#ifndef FLOOR_H
#define FLOOR_H

#include "../load/bytes.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct room {
  struct room *next_of_hash;
  struct room *next_due;
  struct connection **members;
  size_t member_count;
  size_t member_capacity;
  struct bytes due;     /* frames for its members, of this turn of the loop */
  size_t name_length;
  char name[];
};

struct connection {
  int fd;
  bool is_upgraded;
  bool waits_to_write;
  struct room *room;    /* one at a time */
  size_t place;         /* among its members */
  struct bytes kept;    /* what began to come and whose end has not come */
  struct bytes unsent;
};

extern int epoll_fd;

/* connection.c */
void connection_open(int fd);
void connection_event(struct connection *connection, uint32_t events);
void connection_send(struct connection *connection, const char *start, size_t length);
void connection_keep(struct connection *connection, const char *start, size_t length);

/* upgrade.c, frames.c: how many bytes they are done with, -1 where the connection is to end */
ssize_t upgrade_read(struct connection *connection, const char *text, size_t length);
ssize_t frames_read(struct connection *connection, char *start, size_t total);

/* rooms.c */
struct room *room_named(const char *name, size_t length);
void room_join(struct room *room, struct connection *connection);
void room_leave(struct connection *connection);
struct bytes *room_due(struct room *room);
void rooms_send_due(void);
/* By io_uring from here on. */
void rooms_use_ring(void);

/* sha1.c */
enum { SHA1_BYTES = 20, SHA1_MOST_BYTES = 119 };
void sha1(const char *text, size_t length, unsigned char digest[SHA1_BYTES]);

#endif
