#include "load.h"
#include <string.h>

/* 64 steps for each power of two. */
enum { STEP_BITS = 6, STEPS = 1 << STEP_BITS, BUCKETS = 40 * STEPS };

static uint64_t buckets[BUCKETS];
static uint64_t count;

void latency_clear(void) {
  memset(buckets, 0, sizeof buckets);
  count = 0;
}

static int bucket_of(uint64_t us) {
  if (us < STEPS) return (int)us;
  int shift = 63 - __builtin_clzll(us) - STEP_BITS;
  int bucket = (shift + 1) * STEPS + (int)((us >> shift) - STEPS);
  return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static double middle_of(int bucket) {
  if (bucket < STEPS) return bucket;
  int shift = bucket / STEPS - 1;
  return ((double)(bucket % STEPS) + STEPS + 0.5) * (double)(1ull << shift);
}

void latency_add(int64_t us) {
  buckets[bucket_of(us < 0 ? 0 : (uint64_t)us)] += 1;
  count += 1;
}

double latency_quantile_us(double share) {
  uint64_t wanted = (uint64_t)(share * (double)count);
  uint64_t seen = 0;
  for (int bucket = 0; bucket < BUCKETS; bucket += 1) {
    seen += buckets[bucket];
    if (seen > wanted) return middle_of(bucket);
  }
  return 0;
}

uint64_t latency_count(void) { return count; }
