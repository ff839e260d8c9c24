// The only file that knows Python. It is compiled twice: into _C with the kernels of csrc/cpu, and with GE_CUDA into
// _C_cuda with the kernels of csrc/cuda. The Python side has checked and allocated everything.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "alias_free_activation.h"
#include "bias_act.h"
#include "filtered_lrelu.h"
#include "gradient_penalty.h"
#include "isa.h"
#include "norm_act.h"
#include "pixel_norm.h"
#include "pointwise.h"
#include "relayout.h"
#include "scale_bias_act.h"
#include "taps.h"
#include "upfirdn2d.h"
#include "upfirdn2d_act.h"
#include "winograd.h"

namespace py = pybind11;
using namespace gan_engine;

// The last argument of a kernel says where it runs: the number of threads, or the CUDA stream.
using Address = std::uintptr_t;
#if defined(GE_CUDA)
using Where = Address;
#else
using Where = int;
#endif

// The types of the functions below: a kernel, and how many slots of partial sums a kernel wants for these sizes.
template <class Params>
using Kernel = void(const Params&, Where);
using Slots2 = int(std::int64_t, std::int64_t, Where);
using Slots3 = int(std::int64_t, std::int64_t, std::int64_t, Where);

// Every kernel, with its type. GPUs run the other operators in Triton or in PyTorch.
#define GE_CPU_AND_CUDA_KERNELS(KERNEL)                                 \
    KERNEL(alias_free_activation, Kernel<AliasFreeParams>)              \
    KERNEL(alias_free_activation_grad, Kernel<AliasFreeGradParams>)     \
    KERNEL(alias_free_activation_second, Kernel<AliasFreeSecondParams>) \
    KERNEL(alias_free_activation_slots, Slots2)                         \
    KERNEL(bias_act, Kernel<BiasActParams>)                             \
    KERNEL(bias_act_grad, Kernel<BiasActGradParams>)                    \
    KERNEL(bias_act_grad_slots, Slots3)                                 \
    KERNEL(scale_bias_act, Kernel<ScaleBiasActParams>)                  \
    KERNEL(scale_bias_act_grad, Kernel<ScaleBiasActGradParams>)         \
    KERNEL(scale_bias_act_grad_slots, Slots3)                           \
    KERNEL(scale_bias_act_second, Kernel<ScaleBiasActSecondParams>)     \
    KERNEL(upfirdn2d, Kernel<Upfirdn2dParams>)                          \
    KERNEL(upfirdn2d_act, Kernel<Upfirdn2dActParams>)                   \
    KERNEL(sample_dot, Kernel<SampleDotParams>)                         \
    KERNEL(sample_mix, Kernel<SampleMixParams>)                         \
    KERNEL(sample_dot_slots, Slots2)
#define GE_CPU_KERNELS(KERNEL)                                           \
    KERNEL(relayout, Kernel<RelayoutParams>)                             \
    KERNEL(alias_free_images, Kernel<AliasFreeImageParams>)              \
    KERNEL(alias_free_images_grad, Kernel<AliasFreeImageGradParams>)     \
    KERNEL(alias_free_images_second, Kernel<AliasFreeImageSecondParams>) \
    KERNEL(alias_free_images_slots, Slots3)                              \
    KERNEL(filtered_lrelu, Kernel<FilteredLreluParams>)                  \
    KERNEL(upfirdn2d_act_grad, Kernel<Upfirdn2dActGradParams>)           \
    KERNEL(upfirdn2d_act_grad_slots, Slots3)                             \
    KERNEL(norm_stats, Kernel<NormStatsParams>)                          \
    KERNEL(norm_act, Kernel<NormActParams>)                              \
    KERNEL(norm_act_grad, Kernel<NormActGradParams>)                     \
    KERNEL(norm_act_second, Kernel<NormActSecondParams>)                 \
    KERNEL(pixel_norm, Kernel<PixelNormParams>)                          \
    KERNEL(pointwise, Kernel<PointwiseParams>)                           \
    KERNEL(pointwise_wgrad, Kernel<PointwiseWgradParams>)                \
    KERNEL(taps_dot, Kernel<TapsDotParams>)                              \
    KERNEL(taps_scale, Kernel<TapsScaleParams>)                          \
    KERNEL(winograd, Kernel<WinogradParams>)                             \
    KERNEL(winograd_wgrad, Kernel<WinogradWgradParams>)
#define GE_CUDA_KERNELS(KERNEL)                             \
    KERNEL(upfirdn2d_scaled, Kernel<Upfirdn2dScaledParams>) \
    KERNEL(upfirdn2d_scaled_slots, Slots3)

#if defined(GE_CUDA)
#define GE_KERNELS(KERNEL) GE_CPU_AND_CUDA_KERNELS(KERNEL) GE_CUDA_KERNELS(KERNEL)
#else
#define GE_KERNELS(KERNEL) GE_CPU_AND_CUDA_KERNELS(KERNEL) GE_CPU_KERNELS(KERNEL)
#endif

// The kernels of one build: an instruction set of csrc/cpu, or csrc/cuda.
struct Kernels {
    const char* name;
#define GE_POINTER(name, Type) Type* name;
    GE_KERNELS(GE_POINTER)
#undef GE_POINTER
};

// Declares the functions of a build, and collects them in <build>::kernels.
#define GE_FUNCTION(name, Type) Type name;
#define GE_ADDRESS(name, Type) name,
#define GE_BUILD(build)                                              \
    namespace gan_engine {                                           \
    namespace build {                                                \
    GE_KERNELS(GE_FUNCTION)                                          \
    static const Kernels kernels = {#build, GE_KERNELS(GE_ADDRESS)}; \
    }                                                                \
    }

#if defined(GE_CUDA)
GE_BUILD(cuda)
#else
#if defined(GE_HAS_PORTABLE)
GE_BUILD(portable)
#endif
#if defined(GE_HAS_NEON)
GE_BUILD(neon)
#endif
#if defined(GE_HAS_AVX2)
GE_BUILD(avx2)
#endif
#if defined(GE_HAS_AVX512)
GE_BUILD(avx512)
#endif
#endif
#undef GE_BUILD
#undef GE_ADDRESS
#undef GE_FUNCTION

// A build that this module has, and whether this machine can run it.
struct Build {
    Kernels kernels;
    bool runs;
};

// The fastest first.
static const std::vector<Build> kBuilds = {
#if defined(GE_CUDA)
    {cuda::kernels, true},
#endif
#if defined(GE_HAS_AVX512)
    {avx512::kernels, runs_avx512()},
#endif
#if defined(GE_HAS_AVX2)
    {avx2::kernels, runs_avx2()},
#endif
#if defined(GE_HAS_NEON)
    {neon::kernels, true},
#endif
#if defined(GE_HAS_PORTABLE)
    {portable::kernels, true},
#endif
};

static std::vector<Kernels> runnable() {
    std::vector<Kernels> list;
    for (const Build& build : kBuilds)
        if (build.runs) list.push_back(build.kernels);
    return list;
}

// Why no build runs here. Only builds for AVX2 or AVX-512 may not run.
static std::string why_none_runs() {
    std::string names;
    for (const Build& build : kBuilds) names += (names.empty() ? "" : ", ") + std::string(build.kernels.name);
    return "its kernels were compiled for " + names + " alone (GAN_ENGINE_ISAS=native), and this CPU has " +
           best_of_cpu() + "; compile them on this machine, or with GAN_ENGINE_ISAS=all";
}

static const std::vector<Kernels> kRunnable = runnable();
static Kernels in_use = kRunnable.empty() ? Kernels() : kRunnable.front();

static void use_isa(const std::string& name) {
    for (const Kernels& build : kRunnable)
        if (name == build.name) {
            in_use = build;
            return;
        }
    throw std::invalid_argument("use_isa: this machine cannot run " + name);
}

// What Python gives for a member of Params: an address (0 is null), the number of an enumerator, or a list of integers
// for a struct of integers.
template <class Member>
using FromPython = std::conditional_t<
    std::is_pointer_v<Member>, Address,
    std::conditional_t<std::is_enum_v<Member>, int,
                       std::conditional_t<std::is_class_v<Member>,
                                          std::array<std::int64_t, sizeof(Member) / sizeof(std::int64_t)>, Member>>>;

template <class Member>
static Member convert(const FromPython<Member>& value) {
    if constexpr (std::is_pointer_v<Member>) {
        return reinterpret_cast<Member>(value);
    } else if constexpr (std::is_class_v<Member>) {
        static_assert(std::is_trivially_copyable_v<Member> && sizeof(Member) == sizeof value);
        Member member;
        std::memcpy(&member, &value, sizeof value);
        return member;
    } else {
        return Member(value);
    }
}

// The size of a struct that has these members in this order.
template <class... Members>
static constexpr std::size_t size_of_struct() {
    std::size_t end = 0, alignment = 1;
    const auto append = [&](std::size_t size, std::size_t aligned) {
        end = (end + aligned - 1) / aligned * aligned + size;
        if (aligned > alignment) alignment = aligned;
    };
    (append(sizeof(Members), alignof(Members)), ...);
    return (end + alignment - 1) / alignment * alignment;
}

template <auto kernel, class Params, class... Members>
static void define_by_members(py::module_& m, const char* name, std::tuple<Members&...> (*)(Params&)) {
    static_assert(size_of_struct<Members...>() == sizeof(Params), "fields() leaves out a member");
    const auto call = [](FromPython<Members>... values, Where where) {
        Params params;
        params.fields() = std::tuple<Members...>(convert<Members>(values)...);
        (in_use.*kernel)(params, where);
    };
    m.def(name, call, py::call_guard<py::gil_scoped_release>());
}

// Python functions of the kernels: their arguments are the members of Params, then where.
template <auto kernel, class Params>
static void define(py::module_& m, const char* name, Kernel<Params>*) {
    using Fields = decltype(std::declval<Params&>().fields());
    define_by_members<kernel, Params>(m, name, static_cast<Fields (*)(Params&)>(nullptr));
}

template <auto slots, class... Sizes>
static void define(py::module_& m, const char* name, int (*)(Sizes...)) {
    m.def(name, [](Sizes... sizes) { return (in_use.*slots)(sizes...); });
}

// How many threads a parallel region of `most` really has: 1 where the module was built without OpenMP.
static int threads(int most) {
    int count = 0;
#pragma omp parallel num_threads(most) reduction(+ : count)
    count += 1;
    return count;
}

PYBIND11_MODULE(GE_MODULE, m) {
    if (kRunnable.empty()) throw py::import_error(why_none_runs());
    m.def("isa", [] { return std::string(in_use.name); });
    m.def("isas", [] {
        py::list list;
        for (const Kernels& build : kRunnable) list.append(build.name);
        return list;
    });
    m.def("use_isa", &use_isa);
    m.def("threads", &threads);
#define GE_DEFINE(name, Type) define<&Kernels::name>(m, #name, static_cast<Type*>(nullptr));
    GE_KERNELS(GE_DEFINE)
#undef GE_DEFINE
}
