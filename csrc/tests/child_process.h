// in_child: a test in a process of its own. It ends by a signal, so that nobody asks what it has kept for good, threads
// and memory: that is what such tests are about.
#pragma once
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "tests/check.h"

namespace flexkv {

template <typename Test>
void in_child(const Test& test) {
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    ::alarm(60);
    test();
    (void)::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

}  // namespace flexkv
