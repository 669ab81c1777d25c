// A minimal test kit for the native tests: CHECK prints the expression and its place, and fails the program.
#pragma once
#include <cstdio>
#include <cstdlib>

#define CHECK(expr)                                                                 \
  do {                                                                              \
    if (!(expr)) {                                                                  \
      std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #expr); \
      std::abort();                                                                 \
    }                                                                               \
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
