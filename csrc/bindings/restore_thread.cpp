// Compiled without unwind tables (CMakeLists.txt), which is what it is for: glibc's pthread_exit unwinds the thread's
// frames, and where it finds no table it stops and ends the thread, without a look at the callers.
#include "bindings/restore_thread.h"

namespace flexkv {

void restore_thread_or_end(PyThreadState* thread) {
  PyEval_RestoreThread(thread);
  asm volatile("");  // no tail call: this frame is to be there
}

}  // namespace flexkv
