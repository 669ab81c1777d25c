// A minimal test kit for the native tests: CHECK prints the expression and its place, and fails the program;
// CHECK_NO_ERROR prints what the errno says that the expression gave, too.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define CHECK(expr)                                                                 \
  do {                                                                              \
    if (!(expr)) {                                                                  \
      std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #expr); \
      std::abort();                                                                 \
    }                                                                               \
  } while (false)

#define CHECK_NO_ERROR(expr)                                                                           \
  do {                                                                                                 \
    const int error_ = (expr);                                                                         \
    if (error_ != 0) {                                                                                 \
      std::fprintf(stderr, "%s:%d: %s: from: %s\n", __FILE__, __LINE__, std::strerror(error_), #expr); \
      std::abort();                                                                                    \
    }                                                                                                  \
  } while (false)

#define CHECK_THROWS(expr, type)                                                               \
  do {                                                                                         \
    bool thrown_ = false;                                                                      \
    try {                                                                                      \
      (void)(expr);                                                                            \
    } catch (const type&) {                                                                    \
      thrown_ = true;                                                                          \
    }                                                                                          \
    if (!thrown_) {                                                                            \
      std::fprintf(stderr, "%s:%d: expected %s from: %s\n", __FILE__, __LINE__, #type, #expr); \
      std::abort();                                                                            \
    }                                                                                          \
  } while (false)
