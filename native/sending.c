#include "sending.h"
#include <errno.h>

void send_each(const struct sending *sendings, size_t count, int32_t *taken) {
  for (size_t index = 0; index < count; index += 1) {
    const struct sending *sending = &sendings[index];
    ssize_t result = send(sending->fd, sending->start, sending->length, SEND_FLAGS);
    taken[index] = result < 0 ? -errno : (int32_t)result;
  }
}
