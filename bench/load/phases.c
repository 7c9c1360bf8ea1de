#define _GNU_SOURCE
#include "load.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { EVENTS_AT_ONCE = 1024, TICK_MS = 20, BEHIND_WINDOW = 10 };

static const double NS = 1e9;
static const int64_t DRAIN_NS = 3000000000;
static const int64_t STALL_CHECK_NS = 500000000;

/* What is read at both ends of a span. */
struct reading {
  int64_t at_ns;
  int64_t server_cpu_ns;
  int64_t redis_cpu_ns;
  int64_t own_cpu_ns;
  uint64_t sent;
  uint64_t delivered;
};

static double due_rate;
static double due_messages;
static int64_t due_since_ns;
static int next_publisher;

static struct reading read_all(const struct load *load) {
  const struct options *options = &load->options;
  struct reading reading = {.sent = load->sent, .delivered = load->delivered};
  for (int index = 0; index < options->server_pid_count; index += 1) {
    int64_t ns = cpu_ns(options->server_pids[index]);
    reading.server_cpu_ns += ns < 0 ? 0 : ns;
  }
  reading.redis_cpu_ns = options->redis_pid > 0 ? cpu_ns(options->redis_pid) : 0;
  reading.own_cpu_ns = own_cpu_ns();
  reading.at_ns = now_ns();
  return reading;
}

static int64_t server_rss(const struct load *load) {
  int64_t sum = 0;
  for (int index = 0; index < load->options.server_pid_count; index += 1) {
    int64_t bytes = rss_bytes(load->options.server_pids[index]);
    sum += bytes < 0 ? 0 : bytes;
  }
  return sum;
}

static void print_span(const char *name, const struct reading *from, const struct reading *to) {
  double seconds = (double)(to->at_ns - from->at_ns) / NS;
  printf("\"%s\":{\"seconds\":%.6f,\"sent\":%llu,\"delivered\":%llu,\"serverCpuSeconds\":%.6f,"
         "\"redisCpuSeconds\":%.6f,\"loadCpuSeconds\":%.6f},",
         name, seconds, (unsigned long long)(to->sent - from->sent),
         (unsigned long long)(to->delivered - from->delivered),
         (double)(to->server_cpu_ns - from->server_cpu_ns) / NS, (double)(to->redis_cpu_ns - from->redis_cpu_ns) / NS,
         (double)(to->own_cpu_ns - from->own_cpu_ns) / NS);
}

static void set_timer(struct load *load, int64_t at_ns) {
  struct itimerspec when = {.it_value = {.tv_sec = at_ns / 1000000000, .tv_nsec = at_ns % 1000000000}};
  timerfd_settime(load->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

/* Publishes what the rate has made due, round the publishers, and sets the timer to the next one. */
static void publish_due(struct load *load) {
  int64_t now = now_ns();
  while (true) {
    int64_t due_ns = due_since_ns + (int64_t)(due_messages * NS / due_rate);
    if (due_ns > now) return set_timer(load, due_ns);
    if (now - due_ns > load->latest_ns) load->latest_ns = now - due_ns;
    due_messages += 1;
    publish(load, load->publishers[next_publisher], 1);
    next_publisher = (next_publisher + 1) % load->publisher_count;
  }
}

static void publish_at(struct load *load, double rate) {
  due_rate = rate;
  due_messages = 0;
  due_since_ns = now_ns();
  publish_due(load);
}

static void turn(struct load *load, int wait_ms) {
  struct epoll_event events[EVENTS_AT_ONCE];
  int count = epoll_wait(load->epoll_fd, events, EVENTS_AT_ONCE, wait_ms);
  for (int index = 0; index < count; index += 1) {
    if (events[index].data.ptr != NULL) {
      connection_event(load, events[index].data.ptr, events[index].events);
      continue;
    }
    uint64_t expirations;
    if (read(load->timer_fd, &expirations, sizeof expirations) > 0 && load->is_publishing) publish_due(load);
  }
}

static void run_until(struct load *load, int64_t end_ns) {
  int64_t check_ns = now_ns() + STALL_CHECK_NS;
  for (int64_t now = now_ns(); now < end_ns && load->ready > 0; now = now_ns()) {
    int64_t rest_ms = (end_ns - now) / 1000000 + 1;
    turn(load, rest_ms < TICK_MS ? (int)rest_ms : TICK_MS);
    if (load->is_publishing && load->options.mode == WINDOW && now > check_ns) {
      check_ns = now + STALL_CHECK_NS;
      wake_stalled(load);
    }
  }
}

static bool is_wanted(const struct connection *connection, bool members_only) {
  return !(members_only && connection->is_publisher);
}

/* Opens the first `count`, no more at once and no faster than the options say; ends when each is ready, refused or late. */
static void open_all(struct load *load, int count, bool members_only) {
  const struct options *options = &load->options;
  int64_t began = now_ns();
  int64_t end = began + (int64_t)(options->limit_seconds * NS);
  double allowed = 0;
  int opened = 0;
  int next = 0;
  while (now_ns() < end && (next < count || load->under_way > 0)) {
    allowed = options->handshakes_per_second * (double)(now_ns() - began) / NS;
    while (next < count && load->under_way < options->handshakes_at_once &&
           (options->handshakes_per_second == 0 || opened < allowed)) {
      struct connection *connection = &load->connections[next++];
      if (!is_wanted(connection, members_only)) continue;
      opened += 1;
      connection_open(load, connection);
    }
    if (load->under_way > 0) turn(load, options->handshakes_per_second == 0 ? TICK_MS : 1);
  }
  if (load->under_way > 0) went_wrong(load, "handshakes", "not all are done in time", 24);
}

/* What is under way comes, or is late. */
static void drain(struct load *load, uint64_t expected) {
  int64_t end = now_ns() + DRAIN_NS;
  while (load->delivered < expected && now_ns() < end && load->ready > 0) turn(load, TICK_MS);
}

/* One of the first publishes for all of them, so that what a message takes is compiled before the others are there. */
static void publish_early(struct load *load, int count) {
  const struct options *options = &load->options;
  struct connection *first = &load->connections[0];
  struct connection **publishers = load->publishers;
  int publisher_count = load->publisher_count;
  if (options->early_seconds <= 0 || first->state != READY) return;
  load->publishers = &first;
  load->publisher_count = 1;
  next_publisher = 0;
  load->is_publishing = true;
  publish_at(load, options->early_rate_per_second);
  run_until(load, now_ns() + (int64_t)(options->early_seconds * NS));
  load->is_publishing = false;
  drain(load, load->sent * (uint64_t)(count / options->rooms));
  load->publishers = publishers;
  load->publisher_count = publisher_count;
  load->sent = 0;
  load->delivered = 0;
}

/* Handshakes and messages that nobody counts, so that the server has compiled what it needs. */
static void warm_up(struct load *load) {
  const struct options *options = &load->options;
  int count = options->warmup_connections < options->connections ? options->warmup_connections : options->connections;
  for (int round = 0; round < options->warmup_rounds; round += 1) {
    open_all(load, count, false);
    publish_early(load, count);
    for (int index = 0; index < options->connections; index += 1) connection_end(load, &load->connections[index]);
  }
  usleep((useconds_t)(options->calm_seconds * 1e6));
}

static void measure_load(struct load *load) {
  const struct options *options = &load->options;
  double warmup_rate = options->warmup_rate_per_second;
  load->is_publishing = true;
  if (options->mode == RATE) {
    publish_at(load, warmup_rate > 0 ? warmup_rate : options->rate_per_second);
  } else {
    for (int index = 0; index < load->publisher_count; index += 1)
      publish(load, load->publishers[index], options->window);
  }
  run_until(load, now_ns() + (int64_t)(options->warmup_seconds * NS));
  if (options->mode == RATE && warmup_rate > 0) {
    publish_at(load, options->rate_per_second);
    run_until(load, now_ns() + (int64_t)(options->calm_seconds * NS));
  }
  load->counts_latency = true;
  load->latest_ns = 0;
  struct reading from = read_all(load);
  run_until(load, now_ns() + (int64_t)(options->seconds * NS));
  struct reading to = read_all(load);
  load->counts_latency = false;
  load->is_publishing = false;
  uint64_t expected = load->sent * (uint64_t)(options->connections / options->rooms);
  drain(load, expected);
  print_span("measured", &from, &to);
  printf("\"missing\":%lld,", (long long)expected - (long long)load->delivered);
}

static void fall_behind(struct load *load) {
  const struct options *options = &load->options;
  for (int index = 0; index < options->connections; index += 1) {
    struct connection *connection = &load->connections[index];
    if (connection->is_publisher) continue;
    connection_end(load, connection);
    connection->resumes = true;
  }
  int64_t end = now_ns() + (int64_t)(options->limit_seconds * NS);
  uint64_t before = load->delivered;
  for (int done = 0; done < options->behind_events; done += BEHIND_WINDOW) {
    int count = options->behind_events - done < BEHIND_WINDOW ? options->behind_events - done : BEHIND_WINDOW;
    for (int index = 0; index < load->publisher_count; index += 1) publish(load, load->publishers[index], count);
    uint64_t expected = before + (uint64_t)(done + count) * (uint64_t)load->publisher_count;
    while (load->delivered < expected && now_ns() < end) turn(load, TICK_MS);
  }
}

/* Waits for a line on stdin, so that whoever reads counters does so right before the storm. */
static void wait_for_go(void) {
  char line[16];
  fputs("ready\n", stderr);
  if (fgets(line, sizeof line, stdin) == NULL) exit(3);
}

static void measure_resume(struct load *load) {
  fall_behind(load);
  wait_for_go();
  struct reading from = read_all(load);
  open_all(load, load->options.connections, true);
  struct reading to = read_all(load);
  print_span("measured", &from, &to);
  printf("\"resumed\":%d,\"unrecovered\":%d,", load->ready - load->publisher_count, load->unrecovered);
}

/* The last member of each room publishes: what it hears, most others have heard. */
static void place(struct load *load) {
  const struct options *options = &load->options;
  load->connections = calloc((size_t)options->connections, sizeof *load->connections);
  load->publishers = calloc((size_t)options->rooms, sizeof *load->publishers);
  for (int index = 0; index < options->connections; index += 1) {
    struct connection *connection = &load->connections[index];
    connection->index = index;
    connection->room = index % options->rooms;
    connection->is_publisher = index >= options->connections - options->rooms;
    connection->is_sampled = options->mode != RESUME && index % options->sample_every == 0;
    if (connection->is_publisher) load->publishers[load->publisher_count++] = connection;
  }
}

void run_phases(struct load *load) {
  const struct options *options = &load->options;
  place(load);
  load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  load->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  struct epoll_event timer = {.events = EPOLLIN, .data.ptr = NULL};
  epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, load->timer_fd, &timer);
  if (options->warmup_connections > 0) warm_up(load);
  int64_t rss_before = server_rss(load);
  struct reading from = read_all(load);
  open_all(load, options->connections, false);
  struct reading to = read_all(load);
  int connected = load->ready;
  printf("{");
  print_span("connecting", &from, &to);
  if (connected > 0 && load->publishers[0]->state == READY) {
    if (options->mode == RATE || options->mode == WINDOW) measure_load(load);
    if (options->mode == RESUME && connected == options->connections) measure_resume(load);
    if (options->mode == IDLE) run_until(load, now_ns() + (int64_t)(options->settle_seconds * NS));
  }
  printf("\"rssBeforeBytes\":%lld,\"rssAfterBytes\":%lld,", (long long)rss_before, (long long)server_rss(load));
  printf("\"latency\":{\"samples\":%llu,\"p50Us\":%.0f,\"p99Us\":%.0f},", (unsigned long long)latency_count(),
         latency_quantile_us(0.5), latency_quantile_us(0.99));
  printf("\"connected\":%d,\"refused\":%d,\"closed\":%d,\"errors\":%d,\"stalls\":%d,\"otherFrames\":%llu,"
         "\"latestUs\":%lld,\"why\":\"%s\"}\n",
         connected, load->refused, load->closed, load->errors, load->stalls, (unsigned long long)load->other_frames,
         (long long)load->latest_ns / 1000, load->why);
}
