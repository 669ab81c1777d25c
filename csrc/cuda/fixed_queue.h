// FixedQueue: first in, first out, of at most so many elements; it never allocates.
#pragma once
#include <array>
#include <cstddef>
#include <stdexcept>

namespace flexkv::cuda {

template <typename T, std::size_t capacity>
class FixedQueue {
 public:
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] bool is_full() const { return size_ == capacity; }
  // The i-th, from the oldest on. REQUIRES: i < size().
  [[nodiscard]] T& operator[](std::size_t i) { return elements_[(first_ + i) % capacity]; }
  [[nodiscard]] const T& operator[](std::size_t i) const { return elements_[(first_ + i) % capacity]; }
  [[nodiscard]] T& front() { return (*this)[0]; }
  [[nodiscard]] T& back() { return (*this)[size_ - 1]; }
  // Throws std::length_error when it is full.
  void push_back(const T& element) {
    if (is_full()) throw std::length_error("a queue of fixed length is full");
    (*this)[size_] = element;
    ++size_;
  }
  // REQUIRES: it is not empty.
  void pop_front() {
    first_ = (first_ + 1) % capacity;
    --size_;
  }
  void clear() { size_ = 0; }

 private:
  std::array<T, capacity> elements_{};
  std::size_t first_ = 0;
  std::size_t size_ = 0;
};

}  // namespace flexkv::cuda
