#include "floor.h"
#include <string.h>

enum { BLOCK_BYTES = 64, ROUNDS = 80 };

static uint32_t rotated(uint32_t word, int bits) { return word << bits | word >> (32 - bits); }

static uint32_t mixed(int round, uint32_t b, uint32_t c, uint32_t d) {
  if (round < 20) return ((b & c) | (~b & d)) + 0x5a827999;
  if (round < 40) return (b ^ c ^ d) + 0x6ed9eba1;
  if (round < 60) return ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc;
  return (b ^ c ^ d) + 0xca62c1d6;
}

static void add_block(uint32_t hash[5], const unsigned char *block) {
  uint32_t words[ROUNDS];
  for (int index = 0; index < 16; index += 1) {
    const unsigned char *four = block + 4 * index;
    words[index] = (uint32_t)four[0] << 24 | (uint32_t)four[1] << 16 | (uint32_t)four[2] << 8 | four[3];
  }
  for (int index = 16; index < ROUNDS; index += 1)
    words[index] = rotated(words[index - 3] ^ words[index - 8] ^ words[index - 14] ^ words[index - 16], 1);
  uint32_t a = hash[0], b = hash[1], c = hash[2], d = hash[3], e = hash[4];
  for (int round = 0; round < ROUNDS; round += 1) {
    uint32_t next = rotated(a, 5) + mixed(round, b, c, d) + e + words[round];
    e = d;
    d = c;
    c = rotated(b, 30);
    b = a;
    a = next;
  }
  hash[0] += a;
  hash[1] += b;
  hash[2] += c;
  hash[3] += d;
  hash[4] += e;
}

/* Of SHA1_MOST_BYTES at most, which is what two blocks have room for. */
void sha1(const char *text, size_t length, unsigned char digest[SHA1_BYTES]) {
  uint32_t hash[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
  unsigned char blocks[2 * BLOCK_BYTES] = {0};
  size_t total = length < BLOCK_BYTES - 8 ? BLOCK_BYTES : 2 * BLOCK_BYTES;
  memcpy(blocks, text, length);
  blocks[length] = 0x80;
  blocks[total - 2] = (unsigned char)(length * 8 >> 8);
  blocks[total - 1] = (unsigned char)(length * 8);
  for (size_t at = 0; at < total; at += BLOCK_BYTES) add_block(hash, blocks + at);
  for (int index = 0; index < SHA1_BYTES; index += 1)
    digest[index] = (unsigned char)(hash[index / 4] >> (24 - 8 * (index % 4)));
}
