#include "load.h"

static const int64_t STALL_NS = 3000000000;

/* All of them in one write. */
void publish(struct load *load, struct connection *publisher, int count) {
  struct bytes out = {0};
  if (publisher->state != READY) return;
  for (int index = 0; index < count; index += 1) append_event(load, publisher, &out);
  load->sent += (uint64_t)count;
  publisher->outstanding += count;
  publisher->heard_ns = publisher->heard_ns == 0 ? now_ns() : publisher->heard_ns;
  connection_send(load, publisher, &out);
  bytes_free(&out);
}

/* The publisher has heard some of its own: as many go out as the window has room for. */
void refill(struct load *load, struct connection *publisher) {
  publisher->outstanding -= publisher->came;
  if (publisher->outstanding < 0) publisher->outstanding = 0;
  publisher->heard_ns = now_ns();
  if (load->options.mode == WINDOW && publisher->outstanding < load->options.window)
    publish(load, publisher, load->options.window - publisher->outstanding);
}

/* A message that does not come back must not end the load: it is counted, and the window opened again. */
void wake_stalled(struct load *load) {
  int64_t now = now_ns();
  for (int index = 0; index < load->publisher_count; index += 1) {
    struct connection *publisher = load->publishers[index];
    if (publisher->state != READY || publisher->outstanding == 0 || now - publisher->heard_ns < STALL_NS) continue;
    load->stalls += 1;
    publisher->came = publisher->outstanding;
    refill(load, publisher);
  }
}
