#define _GNU_SOURCE
#include "floor.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 256 * 1024 };

static char chunk[READ_BYTES];

void connection_open(int fd) {
  struct connection *connection = calloc(1, sizeof *connection);
  connection->fd = fd;
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

/* Only at its own event, after which nothing of this turn points to it. */
static void connection_end(struct connection *connection) {
  room_leave(connection);
  close(connection->fd);
  bytes_free(&connection->kept);
  bytes_free(&connection->unsent);
  free(connection);
}

static void watch_writes(struct connection *connection, bool on) {
  if (connection->waits_to_write == on) return;
  connection->waits_to_write = on;
  struct epoll_event event = {.events = EPOLLIN | (on ? EPOLLOUT : 0), .data.ptr = connection};
  epoll_ctl(epoll_fd, EPOLL_CTL_MOD, connection->fd, &event);
}

/* Where the client is gone, nothing is sent: its event is under way. */
void connection_send(struct connection *connection, const char *start, size_t length) {
  size_t sent = 0;
  if (connection->unsent.length == 0) {
    ssize_t result = send(connection->fd, start, length, MSG_NOSIGNAL);
    if (result < 0 && errno != EAGAIN) return;
    if (result > 0) sent = (size_t)result;
  }
  if (sent < length) connection_keep(connection, start + sent, length - sent);
}

/* What the kernel has not taken goes out when it can. */
void connection_keep(struct connection *connection, const char *start, size_t length) {
  bytes_append(&connection->unsent, start, length);
  watch_writes(connection, true);
}

static void write_rest(struct connection *connection) {
  struct bytes *unsent = &connection->unsent;
  ssize_t result = send(connection->fd, unsent->start, unsent->length, MSG_NOSIGNAL);
  if (result > 0) bytes_take(unsent, (size_t)result);
  if (unsent->length > 0) return;
  bytes_free(unsent);
  watch_writes(connection, false);
}

/* What fills the chunk and is not whole is too long: there is no room to read more, and it ends. */
static void read_some(struct connection *connection) {
  struct bytes *kept = &connection->kept;
  if (kept->length > 0) memcpy(chunk, kept->start, kept->length);
  ssize_t result = recv(connection->fd, chunk + kept->length, READ_BYTES - kept->length, 0);
  if (result < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (result <= 0) return connection_end(connection);
  size_t total = kept->length + (size_t)result;
  ssize_t upgraded = connection->is_upgraded ? 0 : upgrade_read(connection, chunk, total);
  if (upgraded < 0) return connection_end(connection);
  size_t at = (size_t)upgraded;
  ssize_t framed = connection->is_upgraded ? frames_read(connection, chunk + at, total - at) : 0;
  if (framed < 0) return connection_end(connection);
  at += (size_t)framed;
  kept->length = 0;
  if (at < total) bytes_append(kept, chunk + at, total - at);
}

void connection_event(struct connection *connection, uint32_t events) {
  if ((events & EPOLLOUT) != 0) write_rest(connection);
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) read_some(connection);
}
