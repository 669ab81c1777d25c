// Taking the GIL back when the interpreter may be ending.
#pragma once
#include <Python.h>

namespace flexkv {

// PyEval_RestoreThread. When the interpreter ends under a daemon thread, Python before 3.14 ends that thread in there,
// by pthread_exit: the caller's frames are then left as they are, none of their destructors runs.
void restore_thread_or_end(PyThreadState* thread);

}  // namespace flexkv
