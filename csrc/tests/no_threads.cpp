// Linked into a test that is said to start no thread, and so not run under thread sanitizer: it fails when it does.
#include <pthread.h>

#include <cstdio>
#include <cstdlib>

extern "C" [[gnu::visibility("default")]] int pthread_create(pthread_t* /*thread*/, const pthread_attr_t* /*how*/,
                                                             void* (* /*body*/)(void*), void* /*argument*/) {
  std::fputs("a thread is started; CMakeLists.txt has this test among FLEXKV_SINGLE_THREADED_TESTS\n", stderr);
  std::abort();
}
