#include "load.h"
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

int main(int argc, char **argv) {
  static struct load load;
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  signal(SIGPIPE, SIG_IGN);
  options_read(&load.options, argc, argv);
  tokens_read(&load);
  run_phases(&load);
  return 0;
}
