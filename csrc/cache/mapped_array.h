// MappedArray: a fixed number of zeroed objects in anonymous memory of their own, on transparent huge pages where the
// kernel has them. The pages are there when the constructor returns (where the kernel can do that): the first use of a
// huge page takes milliseconds on some machines, and must not fall into an engine's step.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

namespace flexkv {

template <typename T>
class MappedArray {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>,
                "all-zero bytes must be a value");

 public:
  explicit MappedArray(std::size_t size) : size_(size) {
    void* const memory = ::mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    (void)::madvise(memory, bytes(), MADV_HUGEPAGE);  // refused by kernels without them: slower, not wrong
#endif
#ifdef MADV_POPULATE_WRITE
    (void)::madvise(memory, bytes(), MADV_POPULATE_WRITE);  // from Linux 5.14 on; else pages come when used
#endif
    data_ = static_cast<T*>(memory);
  }
  ~MappedArray() {
    if (data_ != nullptr) ::munmap(data_, bytes());
  }
  MappedArray(MappedArray&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
  MappedArray& operator=(MappedArray&&) = delete;
  MappedArray(const MappedArray&) = delete;
  MappedArray& operator=(const MappedArray&) = delete;

  [[nodiscard]] T& operator[](std::size_t i) { return data_[i]; }
  [[nodiscard]] const T& operator[](std::size_t i) const { return data_[i]; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::size_t bytes() const { return size_ * sizeof(T); }
  [[nodiscard]] std::span<T> span() { return {data_, size_}; }
  [[nodiscard]] std::span<const T> span() const { return {data_, size_}; }

 private:
  T* data_ = nullptr;
  std::size_t size_;
};

}  // namespace flexkv
