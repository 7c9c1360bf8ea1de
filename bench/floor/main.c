#define _GNU_SOURCE
#include "floor.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { EVENTS_AT_ONCE = 1024 };

int epoll_fd;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void allow_many_files(void) {
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
}

static int listen_on(int port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, (struct sockaddr *)&address, length) != 0 || listen(fd, SOMAXCONN) != 0) fail("listen");
  getsockname(fd, (struct sockaddr *)&address, &length);
  printf("listening on %d\n", ntohs(address.sin_port));
  fflush(stdout);
  return fd;
}

static void accept_all(int listener) {
  while (true) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) connection_open(fd);
    else if (errno == EAGAIN) return;
    else if (errno != ECONNABORTED && errno != EINTR) fail("accept");
  }
}

int main(void) {
  const char *port = getenv("PORT");
  allow_many_files();
  if (getenv("RING") != NULL) rooms_use_ring();
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  int listener = listen_on(port == NULL ? 0 : atoi(port));
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
  while (true) {
    struct epoll_event events[EVENTS_AT_ONCE];
    int count = epoll_wait(epoll_fd, events, EVENTS_AT_ONCE, -1);
    for (int index = 0; index < count; index += 1) {
      if (events[index].data.ptr == NULL) accept_all(listener);
      else connection_event(events[index].data.ptr, events[index].events);
    }
    rooms_send_due();
  }
}
