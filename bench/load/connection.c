#define _GNU_SOURCE
#include "load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SOURCE_ADDRESSES = 16, READ_BYTES = 512 * 1024 };

static char chunk[READ_BYTES];

void went_wrong(struct load *load, const char *what, const char *text, size_t length) {
  if (load->why[0] != 0) return;
  int at = snprintf(load->why, WHY_BYTES, "%s: ", what);
  for (size_t index = 0; index < length && at < WHY_BYTES - 1; index += 1) {
    char byte = text[index];
    load->why[at++] = byte < ' ' || byte == '"' || byte == '\\' || byte > '~' ? ' ' : byte;
  }
  load->why[at] = 0;
}

static bool is_handshaking(const struct connection *connection) {
  return connection->state > UNUSED && connection->state < READY;
}

/* With a reset, so that no port is left in TIME_WAIT. */
void connection_end(struct load *load, struct connection *connection) {
  if (connection->state == ENDED || connection->state == UNUSED) return;
  if (is_handshaking(connection)) load->under_way -= 1;
  if (connection->state == READY) load->ready -= 1;
  close(connection->fd);
  connection->state = ENDED;
  bytes_free(&connection->kept);
  bytes_free(&connection->unsent);
}

void connection_is_ready(struct load *load, struct connection *connection) {
  connection->state = READY;
  load->under_way -= 1;
  load->ready += 1;
}

static void refused(struct load *load, struct connection *connection, const char *text, size_t length) {
  load->refused += 1;
  went_wrong(load, "refused", text, length);
  connection_end(load, connection);
}

/* A new socket in place of whatever it was; its position and place stay. */
void connection_open(struct load *load, struct connection *connection) {
  const struct options *options = &load->options;
  int member = connection->index / options->rooms;
  struct sockaddr_in from = {.sin_family = AF_INET};
  struct sockaddr_in to = {.sin_family = AF_INET};
  from.sin_addr.s_addr = htonl(0x7f000002u + (uint32_t)(connection->index % SOURCE_ADDRESSES));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons((uint16_t)options->ports[(member + connection->room) % options->port_count]);
  connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (connection->fd < 0) {
    perror("socket");
    exit(3);
  }
  int one = 1;
  struct linger reset = {.l_onoff = 1, .l_linger = 0};
  setsockopt(connection->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
  setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  connection->state = CONNECTING;
  connection->skip_bytes = 0;
  connection->waits_to_write = true;
  load->under_way += 1;
  if (bind(connection->fd, (struct sockaddr *)&from, sizeof from) != 0 ||
      (connect(connection->fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS)) {
    refused(load, connection, strerror(errno), strlen(strerror(errno)));
    return;
  }
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = connection};
  epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, connection->fd, &event);
}

static void watch_writes(struct load *load, struct connection *connection, bool on) {
  if (connection->waits_to_write == on) return;
  connection->waits_to_write = on;
  struct epoll_event event = {.events = EPOLLIN | (on ? EPOLLOUT : 0), .data.ptr = connection};
  epoll_ctl(load->epoll_fd, EPOLL_CTL_MOD, connection->fd, &event);
}

void connection_send(struct load *load, struct connection *connection, struct bytes *out) {
  size_t sent = 0;
  if (connection->unsent.length == 0) {
    ssize_t result = send(connection->fd, out->start, out->length, MSG_NOSIGNAL);
    if (result >= 0) sent = (size_t)result;
  }
  if (sent == out->length) return;
  bytes_append(&connection->unsent, out->start + sent, out->length - sent);
  watch_writes(load, connection, true);
}

static void write_rest(struct load *load, struct connection *connection) {
  if (connection->state == CONNECTING) {
    char request[4096];
    size_t length = upgrade_request(load, connection, request, sizeof request);
    connection->state = AWAIT_UPGRADE;
    bytes_append(&connection->unsent, request, length);
  }
  struct bytes *unsent = &connection->unsent;
  ssize_t result = unsent->length == 0 ? 0 : send(connection->fd, unsent->start, unsent->length, MSG_NOSIGNAL);
  if (result > 0) bytes_take(unsent, (size_t)result);
  if (unsent->length == 0) {
    bytes_free(unsent);
    watch_writes(load, connection, false);
  }
}

/* Returns the number of bytes that the HTTP answer took, 0 while it is not complete. */
static size_t read_upgrade(struct load *load, struct connection *connection, const char *text, size_t length) {
  const char *end = memmem(text, length, "\r\n\r\n", 4);
  if (end == NULL) return 0;
  if (length < 12 || memcmp(text + 9, "101", 3) != 0) {
    refused(load, connection, text, (size_t)((const char *)memchr(text, '\r', length) - text));
    return length;
  }
  enum dialect dialect = load->options.dialect;
  connection->state = dialect == FANFARE || dialect == SOCKETIO ? AWAIT_HELLO : AWAIT_JOINED;
  if (connection->state == AWAIT_JOINED) {
    struct bytes out = {0};
    append_join(load, connection, &out);
    connection_send(load, connection, &out);
    bytes_free(&out);
  }
  return (size_t)(end + 4 - text);
}

static void lost(struct load *load, struct connection *connection, const char *why) {
  if (is_handshaking(connection)) return refused(load, connection, why, strlen(why));
  load->closed += 1;
  went_wrong(load, "connection lost", why, strlen(why));
  connection_end(load, connection);
}

static void read_some(struct load *load, struct connection *connection) {
  size_t kept = connection->kept.length;
  if (kept >= READ_BYTES) return lost(load, connection, "a frame is too long");
  memcpy(chunk, connection->kept.start == NULL ? chunk : connection->kept.start, kept);
  ssize_t result = recv(connection->fd, chunk + kept, READ_BYTES - kept, 0);
  if (result == 0) return lost(load, connection, "ended by the server");
  if (result < 0) {
    if (errno != EAGAIN && errno != EINTR) lost(load, connection, strerror(errno));
    return;
  }
  if (connection->is_sampled) connection->heard_ns = now_ns();
  size_t total = kept + (size_t)result;
  size_t at = 0;
  if (connection->state == AWAIT_UPGRADE) {
    at = read_upgrade(load, connection, chunk, total);
    if (at == 0) {
      connection->kept.length = 0;
      bytes_append(&connection->kept, chunk, total);
      return;
    }
  }
  connection->came = 0;
  frames_read(load, connection, chunk + at, total - at);
  if (connection->came > 0 && connection->is_publisher && load->is_publishing) refill(load, connection);
}

void connection_event(struct load *load, struct connection *connection, uint32_t events) {
  if (connection->state == ENDED) return;
  if ((events & EPOLLOUT) != 0 && (events & EPOLLERR) == 0) write_rest(load, connection);
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) read_some(load, connection);
}
