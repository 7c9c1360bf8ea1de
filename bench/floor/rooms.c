#include "../../native/ring.h"
#include "floor.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HASHES = 1 << 14 };

static struct room *rooms[HASHES];
static struct room *first_due;
static struct ring *ring;

/* Made where there is none; it stays. */
struct room *room_named(const char *name, size_t length) {
  uint32_t hash = 2166136261u; /* FNV-1a */
  for (size_t index = 0; index < length; index += 1) hash = (hash ^ (unsigned char)name[index]) * 16777619u;
  struct room **first = &rooms[hash % HASHES];
  for (struct room *room = *first; room != NULL; room = room->next_of_hash)
    if (room->name_length == length && memcmp(room->name, name, length) == 0) return room;
  struct room *room = calloc(1, sizeof *room + length);
  memcpy(room->name, name, length);
  room->name_length = length;
  room->next_of_hash = *first;
  *first = room;
  return room;
}

void room_join(struct room *room, struct connection *connection) {
  if (connection->room == room) return;
  room_leave(connection);
  if (room->member_count == room->member_capacity) {
    room->member_capacity = room->member_capacity == 0 ? 8 : room->member_capacity * 2;
    room->members = realloc(room->members, room->member_capacity * sizeof(struct connection *));
  }
  connection->room = room;
  connection->place = room->member_count;
  room->members[room->member_count++] = connection;
}

/* The last member takes its place. */
void room_leave(struct connection *connection) {
  struct room *room = connection->room;
  if (room == NULL) return;
  struct connection *last = room->members[--room->member_count];
  room->members[connection->place] = last;
  last->place = connection->place;
  connection->room = NULL;
}

/* Where to append a frame for all members: it goes out at the end of this turn. */
struct bytes *room_due(struct room *room) {
  if (room->due.length == 0) {
    room->next_due = first_due;
    first_due = room;
  }
  return &room->due;
}

void rooms_use_ring(void) {
  ring = ring_open();
  if (ring != NULL) return;
  perror("io_uring");
  exit(1);
}

static void send_by_ring(struct room *room) {
  static struct sending sendings[BATCH];
  static struct connection *receivers[BATCH];
  static int32_t taken[BATCH];
  const struct bytes *due = &room->due;
  for (size_t from = 0; from < room->member_count; from += BATCH) {
    size_t count = 0;
    for (size_t index = from; index < room->member_count && index < from + BATCH; index += 1) {
      struct connection *member = room->members[index];
      if (member->unsent.length > 0) {
        connection_keep(member, due->start, due->length);
        continue;
      }
      sendings[count] = (struct sending){.fd = member->fd, .start = due->start, .length = due->length};
      receivers[count++] = member;
    }
    ring_send(ring, sendings, count, taken);
    for (size_t index = 0; index < count; index += 1) {
      size_t sent = taken[index] > 0 ? (size_t)taken[index] : 0;
      bool is_gone = taken[index] < 0 && taken[index] != -EAGAIN;
      if (sent < due->length && !is_gone) connection_keep(receivers[index], due->start + sent, due->length - sent);
    }
  }
}

/* What a turn has brought goes to each member in one send(). */
void rooms_send_due(void) {
  for (struct room *room = first_due; room != NULL; room = room->next_due) {
    if (ring != NULL) send_by_ring(room);
    else
      for (size_t index = 0; index < room->member_count; index += 1)
        connection_send(room->members[index], room->due.start, room->due.length);
    room->due.length = 0;
  }
  first_due = NULL;
}
