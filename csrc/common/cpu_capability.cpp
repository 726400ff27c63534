// Which copy of the CPU kernels this processor runs. Compiled for the baseline only.
#include "cpu_capability.h"

#include <cstdlib>
#include <string_view>

namespace ddarts {

static CpuCapability of_processor() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c"))
    return CpuCapability::baseline;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl"))
    return CpuCapability::avx512;
  return CpuCapability::avx2;
#else
  return CpuCapability::baseline;
#endif
}

CpuCapability cpu_capability() {
  static const CpuCapability chosen = [] {
    const char* wish = std::getenv("DDARTS_CPU_CAPABILITY");
    int limit = static_cast<int>(of_processor());
    for (int c = 0; wish != nullptr && c < limit; ++c)
      if (std::string_view(wish) == kCapabilityNames[c]) limit = c;
    return static_cast<CpuCapability>(limit);
  }();
  return chosen;
}

}  // namespace ddarts
