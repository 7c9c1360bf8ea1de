/* The load program: one thread, one epoll, as little work for each message as it can do. */
#ifndef LOAD_H
#define LOAD_H

#include "bytes.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_PORTS = 16, MAX_PIDS = 16, EPOCH_BYTES = 64, WHY_BYTES = 200 };

enum dialect { FANFARE, PLAIN, NEST, SOCKETIO };
enum mode { RATE, WINDOW, IDLE, CONNECT, RESUME };

struct options {
  enum dialect dialect;
  enum mode mode;
  const char *path;
  const char *tokens_file;
  int ports[MAX_PORTS];
  int port_count;
  int server_pids[MAX_PIDS];
  int server_pid_count;
  int redis_pid;
  int connections;
  int rooms;
  int content_bytes;
  double rate_per_second;
  int window;
  double warmup_seconds;
  double warmup_rate_per_second;
  double seconds;
  double settle_seconds;
  double limit_seconds;
  int warmup_connections;
  int warmup_rounds;
  double early_rate_per_second;
  double early_seconds;
  double calm_seconds;
  int handshakes_at_once;
  double handshakes_per_second;
  int sample_every;
  int behind_events;
};

enum state {
  UNUSED,
  CONNECTING,
  AWAIT_UPGRADE,
  AWAIT_HELLO,     /* Fanfare's `connected`, engine.io's open packet */
  AWAIT_NAMESPACE, /* Socket.IO's answer to 40 */
  AWAIT_JOINED,
  REPLAYING,
  READY,
  ENDED,
};

struct connection {
  int fd;
  int index;
  int room;
  enum state state;
  bool is_sampled;
  bool is_publisher;
  bool waits_to_write;
  bool resumes;
  uint64_t skip_bytes;  /* of a payload that is under way and not looked at */
  struct bytes kept;    /* the beginning of a frame whose end has not come */
  struct bytes unsent;
  int outstanding;
  int came;             /* deliveries since they were last taken note of */
  int replayed;
  int64_t position_id;
  int64_t heard_ns;
  char epoch[EPOCH_BYTES];
};

struct load {
  struct options options;
  int epoll_fd;
  int timer_fd;
  struct connection *connections;
  struct connection **publishers;
  int publisher_count;
  char **tokens;
  int token_count;
  int under_way;        /* handshakes */
  int ready;
  int refused;
  int closed;
  int errors;
  int unrecovered;
  int stalls;
  bool is_publishing;
  bool counts_latency;
  char why[WHY_BYTES];  /* the first thing that went wrong */
  uint64_t sent;
  uint64_t delivered;
  uint64_t other_frames;
  int64_t latest_ns;    /* how late it published, at most */
};

/* clock.c */
int64_t now_ns(void);
int64_t cpu_ns(int pid);
int64_t own_cpu_ns(void);
int64_t rss_bytes(int pid);

/* latency.c: a histogram of microseconds, 1.6 % wide steps */
void latency_clear(void);
void latency_add(int64_t us);
double latency_quantile_us(double share);
uint64_t latency_count(void);

/* dialect.c: what the servers are told */
size_t upgrade_request(const struct load *load, const struct connection *connection, char *out, size_t size);
void append_join(const struct load *load, const struct connection *connection, struct bytes *out);
void append_event(const struct load *load, const struct connection *connection, struct bytes *out);
void append_namespace(const struct load *load, const struct connection *connection, struct bytes *out);
void append_frame(struct bytes *out, int opcode, const char *payload, size_t length);

/* frames.c: what they answer */
void frames_read(struct load *load, struct connection *connection, char *start, size_t length);

/* connection.c */
void connection_open(struct load *load, struct connection *connection);
void connection_event(struct load *load, struct connection *connection, uint32_t events);
void connection_send(struct load *load, struct connection *connection, struct bytes *out);
void connection_end(struct load *load, struct connection *connection);
void connection_is_ready(struct load *load, struct connection *connection);
void went_wrong(struct load *load, const char *what, const char *text, size_t length);

/* publishing.c */
void publish(struct load *load, struct connection *publisher, int count);
void refill(struct load *load, struct connection *publisher);
void wake_stalled(struct load *load);

/* options.c */
void options_read(struct options *options, int argc, char **argv);
void tokens_read(struct load *load);

/* phases.c */
void run_phases(struct load *load);

#endif
