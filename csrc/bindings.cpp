// The only file that knows Python. It is compiled twice: into _C, with the kernels of csrc/cpu once per instruction
// set, and with GE_CUDA into _C_cuda, with the kernels of csrc/cuda. Pointers arrive as integers, null as 0; the
// Python side has checked and allocated everything. The last argument of a kernel says where it runs: the number of
// threads, or the CUDA stream.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "bias_act.h"
#include "gradient_penalty.h"
#include "norm_act.h"
#include "pixel_norm.h"
#include "relayout.h"
#include "scale_bias_act.h"
#include "upfirdn2d.h"
#include "upfirdn2d_act.h"
#include "winograd.h"

namespace py = pybind11;
using namespace gan_engine;

using Address = std::uintptr_t;
#if defined(GE_CUDA)
using Where = Address;
#else
using Where = int;
#endif

// What only the CPU has: on GPUs these ops run in Triton or in PyTorch.
#if defined(GE_CUDA)
#define GE_ON_CPU(...)
#else
#define GE_ON_CPU(...) __VA_ARGS__
#endif

#define GE_DECLARE(target)                                                                                          \
    namespace gan_engine {                                                                                          \
    namespace target {                                                                                              \
    void bias_act(const BiasActParams&, Where);                                                                     \
    void bias_act_grad(const BiasActGradParams&, Where);                                                            \
    int bias_act_grad_slots(std::int64_t, std::int64_t, std::int64_t, Where);                                       \
    void upfirdn2d(const Upfirdn2dParams&, Where);                                                                  \
    void sample_dot(const SampleDotParams&, Where);                                                                 \
    void sample_mix(const SampleMixParams&, Where);                                                                 \
    int sample_dot_slots(std::int64_t, std::int64_t, Where);                                                        \
    GE_ON_CPU(void norm_stats(const NormStatsParams&, Where); void norm_act(const NormActParams&, Where);           \
              void norm_act_grad(const NormActGradParams&, Where); void pixel_norm(const PixelNormParams&, Where);  \
              void relayout(const RelayoutParams&, Where); void scale_bias_act(const ScaleBiasActParams&, Where);   \
              void scale_bias_act_grad(const ScaleBiasActGradParams&, Where);                                       \
              int scale_bias_act_grad_slots(std::int64_t, std::int64_t, std::int64_t, Where);                       \
              void upfirdn2d_act(const Upfirdn2dActParams&, Where);                                                 \
              void upfirdn2d_act_grad(const Upfirdn2dActGradParams&, Where);                                        \
              int upfirdn2d_act_grad_slots(std::int64_t, std::int64_t, std::int64_t, Where);                        \
              void winograd(const WinogradParams&, Where); void winograd_wgrad(const WinogradWgradParams&, Where);) \
    }                                                                                                               \
    }

struct Kernels {
    const char* name;
    void (*bias_act)(const BiasActParams&, Where);
    void (*bias_act_grad)(const BiasActGradParams&, Where);
    int (*bias_act_grad_slots)(std::int64_t, std::int64_t, std::int64_t, Where);
    void (*upfirdn2d)(const Upfirdn2dParams&, Where);
    void (*sample_dot)(const SampleDotParams&, Where);
    void (*sample_mix)(const SampleMixParams&, Where);
    int (*sample_dot_slots)(std::int64_t, std::int64_t, Where);
    GE_ON_CPU(void (*norm_stats)(const NormStatsParams&, Where); void (*norm_act)(const NormActParams&, Where);
              void (*norm_act_grad)(const NormActGradParams&, Where); void (*pixel_norm)(const PixelNormParams&, Where);
              void (*relayout)(const RelayoutParams&, Where); void (*scale_bias_act)(const ScaleBiasActParams&, Where);
              void (*scale_bias_act_grad)(const ScaleBiasActGradParams&, Where);
              int (*scale_bias_act_grad_slots)(std::int64_t, std::int64_t, std::int64_t, Where);
              void (*upfirdn2d_act)(const Upfirdn2dActParams&, Where);
              void (*upfirdn2d_act_grad)(const Upfirdn2dActGradParams&, Where);
              int (*upfirdn2d_act_grad_slots)(std::int64_t, std::int64_t, std::int64_t, Where);
              void (*winograd)(const WinogradParams&, Where);
              void (*winograd_wgrad)(const WinogradWgradParams&, Where);)
};

#define GE_KERNELS(target)                                                                                  \
    Kernels {                                                                                               \
        #target, target::bias_act, target::bias_act_grad, target::bias_act_grad_slots, target::upfirdn2d,   \
            target::sample_dot, target::sample_mix, target::sample_dot_slots,                               \
            GE_ON_CPU(target::norm_stats, target::norm_act, target::norm_act_grad, target::pixel_norm,      \
                      target::relayout, target::scale_bias_act, target::scale_bias_act_grad,                \
                      target::scale_bias_act_grad_slots, target::upfirdn2d_act, target::upfirdn2d_act_grad, \
                      target::upfirdn2d_act_grad_slots, target::winograd, target::winograd_wgrad)           \
    }

#if defined(GE_CUDA)
GE_DECLARE(cuda)
#else
GE_DECLARE(portable)
#if defined(GE_HAS_AVX2)
GE_DECLARE(avx2)
#endif
#if defined(GE_HAS_AVX512)
GE_DECLARE(avx512)
#endif
#endif

// What this machine can run, the fastest first.
static std::vector<Kernels> runnable() {
    std::vector<Kernels> list;
#if defined(GE_CUDA)
    list.push_back(GE_KERNELS(cuda));
#else
#if defined(GE_HAS_AVX512)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        list.push_back(GE_KERNELS(avx512));
#endif
#if defined(GE_HAS_AVX2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        list.push_back(GE_KERNELS(avx2));
#endif
    list.push_back(GE_KERNELS(portable));
#endif
    return list;
}

static const std::vector<Kernels> kRunnable = runnable();
static Kernels kernels = kRunnable.front();

static void use_isa(const std::string& name) {
    for (const Kernels& row : kRunnable)
        if (name == row.name) {
            kernels = row;
            return;
        }
    throw std::invalid_argument("use_isa: this machine cannot run " + name);
}

template <class T>
static T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

using Bytes = std::uint8_t;

static void bias_act(Address x, Address b, Address y, Address slope, Address keep, std::int64_t n, std::int64_t inner,
                     std::int64_t channels, int dtype, int act, double alpha, double gain, double clamp, Where where) {
    kernels.bias_act({at<void>(x), at<void>(b), at<void>(y), at<Bytes>(slope), at<Bytes>(keep), n, inner, channels,
                      DType(dtype), Act(act), alpha, gain, clamp},
                     where);
}

static void bias_act_grad(Address dy, Address d_db, Address saved, Address b, Address slope, Address keep, Address dx,
                          Address partial, std::int64_t slots, std::int64_t n, std::int64_t inner,
                          std::int64_t channels, int dtype, int act, double alpha, double gain, double clamp,
                          Where where) {
    kernels.bias_act_grad(
        {at<void>(dy), at<void>(d_db), at<void>(saved), at<void>(b), at<Bytes>(slope), at<Bytes>(keep), at<void>(dx),
         at<void>(partial), slots, n, inner, channels, DType(dtype), Act(act), alpha, gain, clamp},
        where);
}

static int bias_act_grad_slots(std::int64_t n, std::int64_t inner, std::int64_t channels, Where where) {
    return kernels.bias_act_grad_slots(n, inner, channels, where);
}

static void sample_dot(Address x, Address y, Address partial, std::int64_t samples, std::int64_t size,
                       std::int64_t slots, int dtype, Where where) {
    kernels.sample_dot({at<void>(x), at<void>(y), at<void>(partial), samples, size, slots, DType(dtype)}, where);
}

static void sample_mix(Address x, Address y, Address a, Address b, Address out, std::int64_t samples, std::int64_t size,
                       int dtype, Where where) {
    kernels.sample_mix({at<void>(x), at<void>(y), at<void>(a), at<void>(b), at<void>(out), samples, size, DType(dtype)},
                       where);
}

static int sample_dot_slots(std::int64_t samples, std::int64_t size, Where where) {
    return kernels.sample_dot_slots(samples, size, where);
}

// {in, out, up, down, pad, taps}
using Axis = const std::array<std::int64_t, 6>&;
static FirAxis fir_axis(Axis a) { return {a[0], a[1], a[2], a[3], a[4], a[5]}; }

static void upfirdn2d(Address x, Address f, Address y, std::int64_t n, std::int64_t c, Axis h, Axis w, int dtype,
                      bool separable, bool flip, bool channels_last, double gain, Where where) {
    kernels.upfirdn2d({at<void>(x), at<float>(f), at<void>(y), n, c, fir_axis(h), fir_axis(w), DType(dtype), separable,
                       flip, channels_last, gain},
                      where);
}

#if !defined(GE_CUDA)
static void upfirdn2d_act(Address x, Address f, Address y, std::int64_t n, std::int64_t c, Axis h, Axis w, int dtype,
                          bool separable, bool flip, bool channels_last, double fir_gain, Address scale, Address b,
                          Address noise, Address slope, Address keep, std::int64_t noise_n, double alpha, double gain,
                          double clamp, Where where) {
    kernels.upfirdn2d_act({{at<void>(x), at<float>(f), at<void>(y), n, c, fir_axis(h), fir_axis(w), DType(dtype),
                            separable, flip, channels_last, fir_gain},
                           at<void>(scale),
                           at<void>(b),
                           at<void>(noise),
                           at<Bytes>(slope),
                           at<Bytes>(keep),
                           noise_n,
                           alpha,
                           gain,
                           clamp},
                          where);
}

static void upfirdn2d_act_grad(Address dy, Address f, Address dx, std::int64_t n, std::int64_t c, Axis h, Axis w,
                               int dtype, bool separable, bool flip, bool channels_last, double fir_gain, Address x,
                               Address scale, Address slope, Address keep, Address d_scale, Address db, Address d_noise,
                               double alpha, double gain, Where where) {
    kernels.upfirdn2d_act_grad({{at<void>(dy), at<float>(f), at<void>(dx), n, c, fir_axis(h), fir_axis(w), DType(dtype),
                                 separable, flip, channels_last, fir_gain},
                                at<void>(x),
                                at<void>(scale),
                                at<Bytes>(slope),
                                at<Bytes>(keep),
                                at<double>(d_scale),
                                at<double>(db),
                                at<double>(d_noise),
                                alpha,
                                gain},
                               where);
}

static int upfirdn2d_act_grad_slots(std::int64_t images, std::int64_t in, std::int64_t out, Where where) {
    return kernels.upfirdn2d_act_grad_slots(images, in, out, where);
}

static void relayout(Address x, Address y, std::int64_t n, std::int64_t rows, std::int64_t cols, std::int64_t reversed,
                     Where where) {
    kernels.relayout({at<float>(x), at<float>(y), n, rows, cols, reversed}, where);
}

static void scale_bias_act(Address x, Address scale, Address b, Address noise, Address y, Address slope, Address keep,
                           std::int64_t n, std::int64_t rows, std::int64_t cols, std::int64_t noise_n, int dtype,
                           bool channels_last, double alpha, double gain, double clamp, Where where) {
    kernels.scale_bias_act({at<void>(x), at<void>(scale), at<void>(b), at<void>(noise), at<void>(y), at<Bytes>(slope),
                            at<Bytes>(keep), n, rows, cols, noise_n, DType(dtype), channels_last, alpha, gain, clamp},
                           where);
}

static void scale_bias_act_grad(Address dy, Address x, Address scale, Address slope, Address keep, Address dx,
                                Address d_scale, Address db, Address d_noise, std::int64_t slots, std::int64_t n,
                                std::int64_t rows, std::int64_t cols, int dtype, bool channels_last, double alpha,
                                double gain, Where where) {
    kernels.scale_bias_act_grad(
        {at<void>(dy), at<void>(x), at<void>(scale), at<Bytes>(slope), at<Bytes>(keep), at<void>(dx), at<void>(d_scale),
         at<void>(db), at<void>(d_noise), slots, n, rows, cols, DType(dtype), channels_last, alpha, gain},
        where);
}

static int scale_bias_act_grad_slots(std::int64_t n, std::int64_t rows, std::int64_t cols, Where where) {
    return kernels.scale_bias_act_grad_slots(n, rows, cols, where);
}

// [samples, outer, channels, inner, features]
using Shape = const std::array<std::int64_t, 5>&;
static NormActShape norm_act_shape(Shape s) { return {s[0], s[1], s[2], s[3], s[4]}; }

static void norm_stats(Address x, Address mean, Address var, Shape shape, int dtype, Where where) {
    kernels.norm_stats({at<void>(x), at<void>(mean), at<void>(var), norm_act_shape(shape), DType(dtype)}, where);
}

static void norm_act(Address x, Address mean, Address var, Address w, Address b, Address y, Shape shape, int dtype,
                     double slope, double eps, Where where) {
    kernels.norm_act({at<void>(x), at<void>(mean), at<void>(var), at<void>(w), at<void>(b), at<void>(y),
                      norm_act_shape(shape), DType(dtype), slope, eps},
                     where);
}

static void norm_act_grad(Address dy, Address x, Address mean, Address var, Address w, Address b, Address dx,
                          Address dw, Address db, Shape shape, int dtype, double slope, double eps, bool constant_stats,
                          Where where) {
    kernels.norm_act_grad(
        {at<void>(dy), at<void>(x), at<void>(mean), at<void>(var), at<void>(w), at<void>(b), at<void>(dx), at<void>(dw),
         at<void>(db), norm_act_shape(shape), DType(dtype), slope, eps, constant_stats},
        where);
}

static void pixel_norm(Address x, Address dy, Address y, std::int64_t outer, std::int64_t channels, std::int64_t inner,
                       int dtype, double eps, Where where) {
    kernels.pixel_norm({at<void>(x), at<void>(dy), at<void>(y), outer, channels, inner, DType(dtype), eps}, where);
}

// [out, in, stride_out, stride_in, stride_y, stride_x] and [n, in_h, in_w, out_h, out_w, padding]
using Six = const std::array<std::int64_t, 6>&;
static WinogradWeight winograd_shape(Six s) {
    if (std::min(s[0], s[1]) < 1) throw std::invalid_argument("minimal filtering: want channels, got none");
    return {s[0], s[1], s[2], s[3], s[4], s[5]};
}
static WinogradImages winograd_images(Six s) {
    if (*std::min_element(s.begin(), s.begin() + 5) < 1)
        throw std::invalid_argument("minimal filtering: want images, got none");
    return {s[0], s[1], s[2], s[3], s[4], s[5]};
}

// The taps begin `begin` elements behind the address of the weight.
static void winograd(Address x, Address weight, std::int64_t begin, Address bias, Address y, Six images, Six shape,
                     int minimal, Where where) {
    kernels.winograd({at<float>(x), at<float>(weight) + begin, at<float>(bias), at<float>(y), winograd_images(images),
                      winograd_shape(shape), Minimal(minimal)},
                     where);
}

static void winograd_wgrad(Address x, Address dy, Address dweight, Six images, Six shape, int minimal, Where where) {
    kernels.winograd_wgrad({at<float>(x), at<float>(dy), at<float>(dweight), winograd_images(images),
                            winograd_shape(shape), Minimal(minimal)},
                           where);
}
#endif

// How many threads a parallel region of `most` really has: 1 where the module was built without OpenMP.
static int threads(int most) {
    int count = 0;
#pragma omp parallel num_threads(most) reduction(+ : count)
    count += 1;
    return count;
}

PYBIND11_MODULE(GE_MODULE, m) {
    m.def("isa", [] { return std::string(kernels.name); });
    m.def("isas", [] {
        py::list list;
        for (const Kernels& row : kRunnable) list.append(row.name);
        return list;
    });
    m.def("use_isa", &use_isa);
    m.def("threads", &threads);

    const py::call_guard<py::gil_scoped_release> no_gil;
    m.def("bias_act", &bias_act, no_gil);
    m.def("bias_act_grad", &bias_act_grad, no_gil);
    m.def("bias_act_grad_slots", &bias_act_grad_slots);
    m.def("upfirdn2d", &upfirdn2d, no_gil);
    m.def("sample_dot", &sample_dot, no_gil);
    m.def("sample_mix", &sample_mix, no_gil);
    m.def("sample_dot_slots", &sample_dot_slots);
#if !defined(GE_CUDA)
    m.def("relayout", &relayout, no_gil);
    m.def("scale_bias_act", &scale_bias_act, no_gil);
    m.def("scale_bias_act_grad", &scale_bias_act_grad, no_gil);
    m.def("scale_bias_act_grad_slots", &scale_bias_act_grad_slots);
    m.def("upfirdn2d_act", &upfirdn2d_act, no_gil);
    m.def("upfirdn2d_act_grad", &upfirdn2d_act_grad, no_gil);
    m.def("upfirdn2d_act_grad_slots", &upfirdn2d_act_grad_slots);
    m.def("norm_stats", &norm_stats, no_gil);
    m.def("norm_act", &norm_act, no_gil);
    m.def("norm_act_grad", &norm_act_grad, no_gil);
    m.def("pixel_norm", &pixel_norm, no_gil);
    m.def("winograd", &winograd, no_gil);
    m.def("winograd_wgrad", &winograd_wgrad, no_gil);
#endif
}
