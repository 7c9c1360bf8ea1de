#define _GNU_SOURCE
#include "load.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(const char *what, const char *name) {
  fprintf(stderr, "%s: %s\n", what, name);
  exit(3);
}

static int one_of(const char *name, const char *value, const char *const *known) {
  for (int index = 0; known[index] != NULL; index += 1)
    if (strcmp(known[index], value) == 0) return index;
  fail("not a value of this option", name);
  return 0;
}

static int list(const char *value, int *numbers, int most) {
  int count = 0;
  char *rest = NULL;
  char *copy = strdup(value);
  for (char *part = strtok_r(copy, ",", &rest); part != NULL && count < most; part = strtok_r(NULL, ",", &rest))
    numbers[count++] = atoi(part);
  free(copy);
  return count;
}

static void read_one(struct options *options, const char *name, const char *value) {
  static const char *const dialects[] = {"fanfare", "plain", "nest", "socketio", NULL};
  static const char *const modes[] = {"rate", "window", "idle", "connect", "resume", NULL};
  if (strcmp(name, "--dialect") == 0) options->dialect = (enum dialect)one_of(name, value, dialects);
  else if (strcmp(name, "--mode") == 0) options->mode = (enum mode)one_of(name, value, modes);
  else if (strcmp(name, "--path") == 0) options->path = value;
  else if (strcmp(name, "--tokens") == 0) options->tokens_file = value;
  else if (strcmp(name, "--ports") == 0) options->port_count = list(value, options->ports, MAX_PORTS);
  else if (strcmp(name, "--server-pids") == 0)
    options->server_pid_count = list(value, options->server_pids, MAX_PIDS);
  else if (strcmp(name, "--redis-pid") == 0) options->redis_pid = atoi(value);
  else if (strcmp(name, "--connections") == 0) options->connections = atoi(value);
  else if (strcmp(name, "--rooms") == 0) options->rooms = atoi(value);
  else if (strcmp(name, "--content-bytes") == 0) options->content_bytes = atoi(value);
  else if (strcmp(name, "--rate") == 0) options->rate_per_second = atof(value);
  else if (strcmp(name, "--window") == 0) options->window = atoi(value);
  else if (strcmp(name, "--warmup-seconds") == 0) options->warmup_seconds = atof(value);
  else if (strcmp(name, "--seconds") == 0) options->seconds = atof(value);
  else if (strcmp(name, "--settle-seconds") == 0) options->settle_seconds = atof(value);
  else if (strcmp(name, "--limit-seconds") == 0) options->limit_seconds = atof(value);
  else if (strcmp(name, "--warmup-rate") == 0) options->warmup_rate_per_second = atof(value);
  else if (strcmp(name, "--calm-seconds") == 0) options->calm_seconds = atof(value);
  else if (strcmp(name, "--warmup-rounds") == 0) options->warmup_rounds = atoi(value);
  else if (strcmp(name, "--warmup-connections") == 0) options->warmup_connections = atoi(value);
  else if (strcmp(name, "--early-rate") == 0) options->early_rate_per_second = atof(value);
  else if (strcmp(name, "--early-seconds") == 0) options->early_seconds = atof(value);
  else if (strcmp(name, "--handshakes-at-once") == 0) options->handshakes_at_once = atoi(value);
  else if (strcmp(name, "--handshakes-per-second") == 0) options->handshakes_per_second = atof(value);
  else if (strcmp(name, "--sample-every") == 0) options->sample_every = atoi(value);
  else if (strcmp(name, "--behind-events") == 0) options->behind_events = atoi(value);
  else fail("unknown option", name);
}

void options_read(struct options *options, int argc, char **argv) {
  *options = (struct options){
      .path = "/",
      .connections = 1,
      .rooms = 1,
      .content_bytes = 200,
      .rate_per_second = 50,
      .window = 1,
      .warmup_seconds = 1,
      .warmup_rounds = 1,
      .calm_seconds = 0.5,
      .seconds = 3,
      .settle_seconds = 2,
      .limit_seconds = 60,
      .handshakes_at_once = 64,
      .sample_every = 1,
      .behind_events = 100,
  };
  for (int index = 1; index + 1 < argc; index += 2) read_one(options, argv[index], argv[index + 1]);
  if (argc % 2 == 0) fail("an option without a value", argv[argc - 1]);
  if (options->port_count == 0) fail("missing", "--ports");
  if (options->rooms < 1 || options->connections < options->rooms) fail("fewer connections than rooms", "--rooms");
  if (options->sample_every < 1) fail("at least 1", "--sample-every");
  if (options->content_bytes < 30 || options->content_bytes > 65000) fail("30 to 65000", "--content-bytes");
}

/* One token on each line; connections take them in turn. */
void tokens_read(struct load *load) {
  if (load->options.tokens_file == NULL) return;
  FILE *file = fopen(load->options.tokens_file, "r");
  if (file == NULL) fail("cannot read", load->options.tokens_file);
  load->tokens = calloc((size_t)load->options.connections, sizeof *load->tokens);
  char *line = NULL;
  size_t size = 0;
  while (load->token_count < load->options.connections && getline(&line, &size, file) > 0) {
    line[strcspn(line, "\r\n")] = 0;
    load->tokens[load->token_count++] = strdup(line);
  }
  free(line);
  fclose(file);
}
