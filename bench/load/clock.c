#define _GNU_SOURCE
#include "load.h"
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static const int64_t NS = 1000000000;

static int64_t read_clock(clockid_t clock) {
  struct timespec at;
  if (clock_gettime(clock, &at) != 0) return -1;
  return at.tv_sec * NS + at.tv_nsec;
}

int64_t now_ns(void) { return read_clock(CLOCK_MONOTONIC); }

int64_t own_cpu_ns(void) { return read_clock(CLOCK_PROCESS_CPUTIME_ID); }

/* User and system time of all threads: the sum of /proc/<pid>/stat, finer than its ticks. -1 once it has ended. */
int64_t cpu_ns(int pid) {
  clockid_t clock;
  if (clock_getcpuclockid(pid, &clock) != 0) return -1;
  return read_clock(clock);
}

int64_t rss_bytes(int pid) {
  char path[64];
  long total = 0;
  long resident = 0;
  snprintf(path, sizeof path, "/proc/%d/statm", pid);
  FILE *file = fopen(path, "r");
  if (file == NULL) return -1;
  if (fscanf(file, "%ld %ld", &total, &resident) != 2) resident = -1;
  fclose(file);
  return resident < 0 ? -1 : (int64_t)resident * sysconf(_SC_PAGESIZE);
}
