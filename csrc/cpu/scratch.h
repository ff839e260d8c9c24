// Memory that a kernel needs during a call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gan_engine {
namespace GE_ISA {

constexpr std::int64_t kHugePage = 2 << 20;

// A thread keeps this much for the buffers of its calls, in huge pages, which Linux fills as they are used. Where x and
// dy of a layer are small, looking up small pages takes a good part of the time: 256 channels, 8x8 pixels, batch 8,
// take 11.9 ms forward and backward instead of 12.9 (AVX2, 2026-11). Larger buffers come from malloc: kept, they would
// show in the memory of a small network.
constexpr std::int64_t kKept = 8 << 20;

class Kept {
  public:
    // Memory for `bytes` behind all that was taken, or null if there is not enough.
    char* take(std::int64_t bytes) {
        if (memory_ == nullptr && !tried_) memory_ = mapped(), tried_ = true;
        if (memory_ == nullptr || taken_ + bytes > kKept) return nullptr;
        taken_ += bytes;
        return memory_ + taken_ - bytes;
    }
    // Gives back what was taken last, if it came from here.
    bool give_back(char* p) {
        if (memory_ == nullptr || p < memory_ || p >= memory_ + kKept) return false;
        taken_ = p - memory_;
        return true;
    }
#if defined(MADV_HUGEPAGE) && !defined(__SANITIZE_ADDRESS__)
    ~Kept() {
        if (begin_ != MAP_FAILED) munmap(begin_, kMapped);
    }

  private:
    static constexpr std::int64_t kMapped = kKept + kHugePage;  // with space to align the memory to huge pages
    char* mapped() {
        begin_ = mmap(nullptr, kMapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (begin_ == MAP_FAILED) return nullptr;
        char* const p = static_cast<char*>(begin_) + (-reinterpret_cast<std::intptr_t>(begin_) & (kHugePage - 1));
        madvise(p, kKept, MADV_HUGEPAGE);
        return p;
    }
    void* begin_ = MAP_FAILED;
#else
  private:
    char* mapped() { return nullptr; }  // sanitizers watch each block of malloc
#endif
    char* memory_ = nullptr;
    bool tried_ = false;
    std::int64_t taken_ = 0;
};

inline thread_local Kept kept;

struct FreeMemory {
    void operator()(float* p) const {
        if (!kept.give_back(reinterpret_cast<char*>(p))) std::free(p);
    }
};

// Buffers are freed by their thread, the last one first.
using Buffer = std::unique_ptr<float[], FreeMemory>;

// A buffer of n numbers. From malloc, large ones ask for huge pages too, because each new page costs a fault (38 MB: 5
// ms instead of 21). Their alignment is a line of the cache: with blocks aligned to huge pages, the heap of glibc grows
// from call to call, and the fresh pages take as long as the products (gradient by a weight of 512 channels, 8x8
// pixels, AVX2, 2026-11: 40 ms instead of 19).
inline Buffer buffer(std::int64_t n) {
    const std::int64_t bytes = (4 * n + 63) / 64 * 64;
    char* p = kept.take(bytes);
    if (p != nullptr) return Buffer(reinterpret_cast<float*>(p));
    p = static_cast<char*>(std::aligned_alloc(64, bytes));
    if (p == nullptr) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    const std::int64_t skipped = -reinterpret_cast<std::intptr_t>(p) & (kHugePage - 1);
    if (bytes >= 2 * kHugePage) madvise(p + skipped, (bytes - skipped) / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
    return Buffer(reinterpret_cast<float*>(p));
}

}  // namespace GE_ISA
}  // namespace gan_engine
