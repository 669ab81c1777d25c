// VolatileFileSystem: a file system on a disk that loses power. What was not synced lies apart, in sectors of 512
// bytes; at the cut each of them is, at random, as it was last synced or as any of the writes since then left it, one
// independent of the other, and each change of a length is kept or lost from some point on. What `sync` has returned
// for stays. After the cut every call fails with EIO; the files below are as a restart would find them, and a new
// VolatileFileSystem opens them.
//
// Names of files are durable at once: the directory syncs them (docs/formats/ssd.md). Files have no descriptor, so that
// io_uring does not pass the double by. Thread safety: all of it, any thread.
#pragma once
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "storage/file_system.h"
#include "tests/check.h"
#include "tests/choices.h"

namespace flexkv {

// One file's state, shared by those who have it open.
class VolatileDisk {
 public:
  static constexpr std::uint64_t sector_bytes = 512;
  using Sector = std::array<std::byte, sector_bytes>;

  struct Inode {
    std::unique_ptr<File> durable;
    std::uint64_t size_bytes = 0;                          // as programs see it
    std::vector<std::uint64_t> sizes;                      // set since the last sync, oldest first
    std::map<std::uint64_t, std::vector<Sector>> sectors;  // what each was written to be since then, oldest first
  };

  std::mutex mutex;
  bool is_cut = false;
  std::uint64_t calls_left = 0;  // until the power goes; 0: it stays
  Choices* choices = nullptr;
  std::map<std::string, Inode> inodes;

  // False when there is no power.
  bool enter() {
    if (!is_cut && calls_left > 0 && --calls_left == 0) cut_all(*choices);
    return !is_cut;
  }
  void cut_all(Choices& chosen) {
    is_cut = true;
    for (auto& [path, inode] : inodes) cut(inode, chosen);
  }

  // What programs see of a sector.
  static Sector read_sector(Inode& inode, std::uint64_t index) {
    if (const auto found = inode.sectors.find(index); found != inode.sectors.end()) return found->second.back();
    return durable_sector(inode, index);
  }

  static void make_durable(Inode& inode) {
    for (const auto& [index, versions] : inode.sectors) put(inode, index, versions.back());
    inode.sectors.clear();
    set_durable_size(inode, inode.size_bytes);
    inode.sizes.clear();
  }

  // Sectors beyond a new length are gone, those of it that are new read as zeros.
  static void resize(Inode& inode, std::uint64_t size_bytes) {
    const std::uint64_t kept = std::min(inode.size_bytes, size_bytes);
    if (kept % sector_bytes != 0) {
      Sector last = read_sector(inode, kept / sector_bytes);
      std::fill(last.begin() + static_cast<std::ptrdiff_t>(kept % sector_bytes), last.end(), std::byte{0});
      inode.sectors[kept / sector_bytes].push_back(last);
    }
    const std::uint64_t first_gone = (kept + sector_bytes - 1) / sector_bytes;
    const std::uint64_t durable_end = (durable_size(inode) + sector_bytes - 1) / sector_bytes;
    inode.sectors.erase(inode.sectors.lower_bound(first_gone), inode.sectors.end());
    if (size_bytes > kept) {  // what is on the disk below must not show through
      const std::uint64_t end = std::min(durable_end, (size_bytes + sector_bytes - 1) / sector_bytes);
      for (std::uint64_t index = first_gone; index < end; ++index) inode.sectors[index].push_back(Sector{});
    }
    inode.size_bytes = size_bytes;
    inode.sizes.push_back(size_bytes);
  }

  static void cut(Inode& inode, Choices& choices) {
    // Lengths are of the file system's journal: those up to some point have been kept.
    std::uint64_t size_bytes = durable_size(inode);
    const std::uint64_t num_kept = choices.below(inode.sizes.size() + 1);
    for (std::uint64_t i = 0; i < num_kept; ++i) {
      size_bytes = inode.sizes[i];
      set_durable_size(inode, size_bytes);
    }
    for (const auto& [index, versions] : inode.sectors) {
      const std::uint64_t version = choices.below(versions.size() + 1);
      if (version > 0 && index * sector_bytes < size_bytes) put(inode, index, versions[version - 1]);
    }
    set_durable_size(inode, size_bytes);
    CHECK(inode.durable->sync() == 0);
  }

 private:
  static std::uint64_t durable_size(Inode& inode) {
    const std::int64_t size = inode.durable->size();
    CHECK(size >= 0);
    return static_cast<std::uint64_t>(size);
  }
  static void set_durable_size(Inode& inode, std::uint64_t size_bytes) {
    if (durable_size(inode) != size_bytes) CHECK_NO_ERROR(inode.durable->allocate(size_bytes));
  }
  static Sector durable_sector(Inode& inode, std::uint64_t index) {
    Sector sector{};
    const iovec piece{sector.data(), sector.size()};
    CHECK(inode.durable->read(std::span(&piece, 1), index * sector_bytes) >= 0);
    return sector;
  }
  static void put(Inode& inode, std::uint64_t index, const Sector& sector) {
    Sector copy = sector;
    const iovec piece{copy.data(), copy.size()};
    CHECK(inode.durable->write(std::span(&piece, 1), index * sector_bytes) == static_cast<std::int64_t>(copy.size()));
  }
};

class VolatileFile final : public File {
 public:
  VolatileFile(std::shared_ptr<VolatileDisk> disk, std::string path) : disk_(std::move(disk)), path_(std::move(path)) {}

  std::int64_t read(std::span<const iovec> to, std::uint64_t offset) override {
    const std::lock_guard lock(disk_->mutex);
    if (!disk_->enter()) return -EIO;
    VolatileDisk::Inode& file = inode();
    std::int64_t total = 0;
    for (const iovec& piece : to) {
      auto* bytes = static_cast<std::byte*>(piece.iov_base);
      const std::uint64_t left = file.size_bytes > offset ? file.size_bytes - offset : 0;
      const std::uint64_t length = std::min<std::uint64_t>(piece.iov_len, left);
      for (std::uint64_t done = 0; done < length;) {
        const auto [index, within, count] = part(offset + done, length - done);
        const VolatileDisk::Sector sector = VolatileDisk::read_sector(file, index);
        std::memcpy(bytes + done, sector.data() + within, count);
        done += count;
      }
      offset += length;
      total += static_cast<std::int64_t>(length);
      if (length < piece.iov_len) break;
    }
    return total;
  }

  std::int64_t write(std::span<const iovec> from, std::uint64_t offset) override {
    const std::lock_guard lock(disk_->mutex);
    if (!disk_->enter()) return -EIO;
    VolatileDisk::Inode& file = inode();
    std::int64_t total = 0;
    for (const iovec& piece : from) {
      const auto* bytes = static_cast<const std::byte*>(piece.iov_base);
      const std::uint64_t end = offset + piece.iov_len;
      if (end > file.size_bytes) VolatileDisk::resize(file, end);
      for (std::uint64_t done = 0; done < piece.iov_len;) {
        const auto [index, within, count] = part(offset + done, piece.iov_len - done);
        VolatileDisk::Sector sector = VolatileDisk::read_sector(file, index);
        std::memcpy(sector.data() + within, bytes + done, count);
        file.sectors[index].push_back(sector);
        done += count;
      }
      offset = end;
      total += static_cast<std::int64_t>(piece.iov_len);
    }
    return total;
  }

  int sync() override {
    const std::lock_guard lock(disk_->mutex);
    if (!disk_->enter()) return EIO;
    VolatileDisk::make_durable(inode());
    return 0;
  }

  int allocate(std::uint64_t size_bytes) override {
    const std::lock_guard lock(disk_->mutex);
    if (!disk_->enter()) return EIO;
    if (inode().size_bytes != size_bytes) VolatileDisk::resize(inode(), size_bytes);
    return 0;
  }

  std::int64_t size() override {
    const std::lock_guard lock(disk_->mutex);
    return !disk_->enter() ? -EIO : static_cast<std::int64_t>(inode().size_bytes);
  }

  [[nodiscard]] int fd() const override { return -1; }
  [[nodiscard]] bool is_direct() const override { return false; }

 private:
  struct Part {
    std::uint64_t index;
    std::uint64_t within;
    std::uint64_t count;
  };
  static Part part(std::uint64_t offset, std::uint64_t left) {
    const std::uint64_t within = offset % VolatileDisk::sector_bytes;
    return {offset / VolatileDisk::sector_bytes, within, std::min(left, VolatileDisk::sector_bytes - within)};
  }
  VolatileDisk::Inode& inode() { return disk_->inodes.at(path_); }

  std::shared_ptr<VolatileDisk> disk_;
  std::string path_;
};

class VolatileFileSystem final : public FileSystem {
 public:
  explicit VolatileFileSystem(FileSystem& below = posix_file_system()) : below_(below) {}

  std::unique_ptr<File> open(const std::string& path, OpenMode /*mode*/, int& error) override {
    const std::lock_guard lock(disk_->mutex);
    error = disk_->enter() ? 0 : EIO;
    if (error != 0) return nullptr;
    if (!disk_->inodes.contains(path)) {
      VolatileDisk::Inode inode;
      inode.durable = below_.open(path, OpenMode::buffered, error);
      if (inode.durable == nullptr) return nullptr;
      const std::int64_t size = inode.durable->size();
      CHECK(size >= 0);
      inode.size_bytes = static_cast<std::uint64_t>(size);
      disk_->inodes.emplace(path, std::move(inode));
    }
    return std::make_unique<VolatileFile>(disk_, path);
  }

  // The power is gone: what of the unsynced has reached the disk is chosen.
  void cut(Choices& choices) {
    const std::lock_guard lock(disk_->mutex);
    if (!disk_->is_cut) disk_->cut_all(choices);
  }
  // It goes at the `calls`-th call from now. REQUIRES: the choices outlive it; nobody else draws from them meanwhile.
  void cut_after(std::uint64_t calls, Choices& choices) {
    const std::lock_guard lock(disk_->mutex);
    disk_->calls_left = calls;
    disk_->choices = &choices;
  }
  [[nodiscard]] bool is_cut() const {
    const std::lock_guard lock(disk_->mutex);
    return disk_->is_cut;
  }

 private:
  FileSystem& below_;
  std::shared_ptr<VolatileDisk> disk_ = std::make_shared<VolatileDisk>();
};

}  // namespace flexkv
