// Made by scripts/cuda_kernels.sh out of csrc/cuda/gather.cu; not to be edited.
#pragma once

namespace flexkv::cuda {

inline constexpr char kernels_ptx[] = R"ptx(

.version 8.0
.target sm_75
.address_size 64

	// .globl	gather_16

.visible .entry gather_16(
	.param .align 8 .b8 gather_16_param_0[3872]
)
.maxntid 1024, 1, 1
{
	.reg .pred 	%p<15>;
	.reg .b32 	%r<357>;
	.reg .b64 	%rd<112>;

	mov.b64 	%rd14, gather_16_param_0;
	mov.u32 	%r30, %ntid.x;
	shr.u32 	%r31, %r30, 5;
	add.s64 	%rd1, %rd14, 24;
	ld.param.v2.u32 	{%r32, %r33}, [gather_16_param_0+24];
	mul.lo.s32 	%r34, %r32, %r33;
	mov.u32 	%r35, %ctaid.x;
	mov.u32 	%r36, %tid.x;
	shr.u32 	%r37, %r36, 5;
	mad.lo.s32 	%r350, %r31, %r35, %r37;
	setp.ge.u32 	%p1, %r350, %r34;
	@%p1 bra 	$L__BB0_19;

	ld.param.u32 	%r4, [%rd1];
	ld.param.u64 	%rd2, [%rd1+-24];
	ld.param.u64 	%rd3, [%rd1+-16];
	ld.param.u64 	%rd4, [%rd1+-8];
	cvta.to.global.u64 	%rd16, %rd2;

$L__BB0_2:
	div.u32 	%r38, %r350, %r4;
	mul.lo.s32 	%r39, %r38, %r4;
	sub.s32 	%r40, %r350, %r39;
	mul.wide.u32 	%rd17, %r40, 24;
	add.s64 	%rd18, %rd16, %rd17;
	ld.global.v2.u32 	{%r41, %r42}, [%rd18+16];
	cvt.u64.u32 	%rd19, %r38;
	mul.wide.u32 	%rd21, %r38, 4;
	add.s64 	%rd22, %rd14, %rd21;
	ld.param.u32 	%rd23, [%rd22+32];
	ld.global.u64 	%rd24, [%rd18+8];
	mul.lo.s64 	%rd25, %rd24, %rd23;
	ld.global.u64 	%rd26, [%rd18];
	add.s64 	%rd5, %rd25, %rd26;
	mul.lo.s64 	%rd27, %rd4, %rd19;
	cvt.u64.u32 	%rd28, %r41;
	add.s64 	%rd29, %rd3, %rd28;
	add.s64 	%rd6, %rd29, %rd27;
	shr.u32 	%r6, %r42, 4;
	and.b32  	%r352, %r36, 31;
	or.b32  	%r46, %r352, 96;
	setp.ge.u32 	%p2, %r46, %r6;
	@%p2 bra 	$L__BB0_11;

	and.b32  	%r352, %r36, 31;
	mov.u32 	%r49, -97;
	sub.s32 	%r50, %r49, %r352;
	add.s32 	%r9, %r50, %r6;
	shr.u32 	%r51, %r9, 7;
	add.s32 	%r52, %r51, 1;
	and.b32  	%r10, %r52, 3;
	setp.eq.s32 	%p3, %r10, 0;
	@%p3 bra 	$L__BB0_7;

	and.b32  	%r86, %r36, 31;
	shl.b32 	%r87, %r36, 4;
	cvt.u64.u32 	%rd38, %r87;
	and.b64  	%rd39, %rd38, 496;
	add.s64 	%rd30, %rd5, %rd39;
	// begin inline asm
	ld.global.cg.v4.u32 {%r53,%r54,%r55,%r56}, [%rd30];
	// end inline asm
	add.s64 	%rd31, %rd30, 512;
	// begin inline asm
	ld.global.cg.v4.u32 {%r57,%r58,%r59,%r60}, [%rd31];
	// end inline asm
	add.s64 	%rd32, %rd30, 1024;
	// begin inline asm
	ld.global.cg.v4.u32 {%r61,%r62,%r63,%r64}, [%rd32];
	// end inline asm
	add.s64 	%rd33, %rd30, 1536;
	// begin inline asm
	ld.global.cg.v4.u32 {%r65,%r66,%r67,%r68}, [%rd33];
	// end inline asm
	add.s64 	%rd34, %rd6, %rd39;
	// begin inline asm
	st.global.cg.v4.u32 [%rd34], {%r53,%r54,%r55,%r56};
	// end inline asm
	add.s64 	%rd35, %rd34, 512;
	// begin inline asm
	st.global.cg.v4.u32 [%rd35], {%r57,%r58,%r59,%r60};
	// end inline asm
	add.s64 	%rd36, %rd34, 1024;
	// begin inline asm
	st.global.cg.v4.u32 [%rd36], {%r61,%r62,%r63,%r64};
	// end inline asm
	add.s64 	%rd37, %rd34, 1536;
	// begin inline asm
	st.global.cg.v4.u32 [%rd37], {%r65,%r66,%r67,%r68};
	// end inline asm
	or.b32  	%r352, %r86, 128;
	setp.eq.s32 	%p4, %r10, 1;
	@%p4 bra 	$L__BB0_7;

	add.s64 	%rd40, %rd30, 2048;
	// begin inline asm
	ld.global.cg.v4.u32 {%r88,%r89,%r90,%r91}, [%rd40];
	// end inline asm
	add.s64 	%rd41, %rd30, 2560;
	// begin inline asm
	ld.global.cg.v4.u32 {%r92,%r93,%r94,%r95}, [%rd41];
	// end inline asm
	add.s64 	%rd42, %rd30, 3072;
	// begin inline asm
	ld.global.cg.v4.u32 {%r96,%r97,%r98,%r99}, [%rd42];
	// end inline asm
	add.s64 	%rd43, %rd30, 3584;
	// begin inline asm
	ld.global.cg.v4.u32 {%r100,%r101,%r102,%r103}, [%rd43];
	// end inline asm
	add.s64 	%rd44, %rd34, 2048;
	// begin inline asm
	st.global.cg.v4.u32 [%rd44], {%r88,%r89,%r90,%r91};
	// end inline asm
	add.s64 	%rd45, %rd34, 2560;
	// begin inline asm
	st.global.cg.v4.u32 [%rd45], {%r92,%r93,%r94,%r95};
	// end inline asm
	add.s64 	%rd46, %rd34, 3072;
	// begin inline asm
	st.global.cg.v4.u32 [%rd46], {%r96,%r97,%r98,%r99};
	// end inline asm
	add.s64 	%rd47, %rd34, 3584;
	// begin inline asm
	st.global.cg.v4.u32 [%rd47], {%r100,%r101,%r102,%r103};
	// end inline asm
	or.b32  	%r352, %r86, 256;
	setp.eq.s32 	%p5, %r10, 2;
	@%p5 bra 	$L__BB0_7;

	add.s64 	%rd48, %rd30, 4096;
	// begin inline asm
	ld.global.cg.v4.u32 {%r122,%r123,%r124,%r125}, [%rd48];
	// end inline asm
	add.s64 	%rd49, %rd30, 4608;
	// begin inline asm
	ld.global.cg.v4.u32 {%r126,%r127,%r128,%r129}, [%rd49];
	// end inline asm
	add.s64 	%rd50, %rd30, 5120;
	// begin inline asm
	ld.global.cg.v4.u32 {%r130,%r131,%r132,%r133}, [%rd50];
	// end inline asm
	add.s64 	%rd51, %rd30, 5632;
	// begin inline asm
	ld.global.cg.v4.u32 {%r134,%r135,%r136,%r137}, [%rd51];
	// end inline asm
	add.s64 	%rd52, %rd34, 4096;
	// begin inline asm
	st.global.cg.v4.u32 [%rd52], {%r122,%r123,%r124,%r125};
	// end inline asm
	add.s64 	%rd53, %rd34, 4608;
	// begin inline asm
	st.global.cg.v4.u32 [%rd53], {%r126,%r127,%r128,%r129};
	// end inline asm
	add.s64 	%rd54, %rd34, 5120;
	// begin inline asm
	st.global.cg.v4.u32 [%rd54], {%r130,%r131,%r132,%r133};
	// end inline asm
	add.s64 	%rd55, %rd34, 5632;
	// begin inline asm
	st.global.cg.v4.u32 [%rd55], {%r134,%r135,%r136,%r137};
	// end inline asm
	or.b32  	%r352, %r86, 384;

$L__BB0_7:
	setp.lt.u32 	%p6, %r9, 384;
	@%p6 bra 	$L__BB0_11;

	add.s32 	%r353, %r352, 96;
	mul.wide.u32 	%rd111, %r352, 16;

$L__BB0_9:
	add.s64 	%rd88, %rd5, %rd111;
	add.s64 	%rd89, %rd6, %rd111;
	// begin inline asm
	ld.global.cg.v4.u32 {%r156,%r157,%r158,%r159}, [%rd88];
	// end inline asm
	add.s64 	%rd57, %rd88, 512;
	// begin inline asm
	ld.global.cg.v4.u32 {%r160,%r161,%r162,%r163}, [%rd57];
	// end inline asm
	add.s64 	%rd58, %rd88, 1024;
	// begin inline asm
	ld.global.cg.v4.u32 {%r164,%r165,%r166,%r167}, [%rd58];
	// end inline asm
	add.s64 	%rd59, %rd88, 1536;
	// begin inline asm
	ld.global.cg.v4.u32 {%r168,%r169,%r170,%r171}, [%rd59];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd89], {%r156,%r157,%r158,%r159};
	// end inline asm
	add.s64 	%rd61, %rd89, 512;
	// begin inline asm
	st.global.cg.v4.u32 [%rd61], {%r160,%r161,%r162,%r163};
	// end inline asm
	add.s64 	%rd62, %rd89, 1024;
	// begin inline asm
	st.global.cg.v4.u32 [%rd62], {%r164,%r165,%r166,%r167};
	// end inline asm
	add.s64 	%rd63, %rd89, 1536;
	// begin inline asm
	st.global.cg.v4.u32 [%rd63], {%r168,%r169,%r170,%r171};
	// end inline asm
	add.s64 	%rd64, %rd88, 2048;
	// begin inline asm
	ld.global.cg.v4.u32 {%r188,%r189,%r190,%r191}, [%rd64];
	// end inline asm
	add.s64 	%rd65, %rd88, 2560;
	// begin inline asm
	ld.global.cg.v4.u32 {%r192,%r193,%r194,%r195}, [%rd65];
	// end inline asm
	add.s64 	%rd66, %rd88, 3072;
	// begin inline asm
	ld.global.cg.v4.u32 {%r196,%r197,%r198,%r199}, [%rd66];
	// end inline asm
	add.s64 	%rd67, %rd88, 3584;
	// begin inline asm
	ld.global.cg.v4.u32 {%r200,%r201,%r202,%r203}, [%rd67];
	// end inline asm
	add.s64 	%rd68, %rd89, 2048;
	// begin inline asm
	st.global.cg.v4.u32 [%rd68], {%r188,%r189,%r190,%r191};
	// end inline asm
	add.s64 	%rd69, %rd89, 2560;
	// begin inline asm
	st.global.cg.v4.u32 [%rd69], {%r192,%r193,%r194,%r195};
	// end inline asm
	add.s64 	%rd70, %rd89, 3072;
	// begin inline asm
	st.global.cg.v4.u32 [%rd70], {%r196,%r197,%r198,%r199};
	// end inline asm
	add.s64 	%rd71, %rd89, 3584;
	// begin inline asm
	st.global.cg.v4.u32 [%rd71], {%r200,%r201,%r202,%r203};
	// end inline asm
	add.s64 	%rd72, %rd88, 4096;
	// begin inline asm
	ld.global.cg.v4.u32 {%r220,%r221,%r222,%r223}, [%rd72];
	// end inline asm
	add.s64 	%rd73, %rd88, 4608;
	// begin inline asm
	ld.global.cg.v4.u32 {%r224,%r225,%r226,%r227}, [%rd73];
	// end inline asm
	add.s64 	%rd74, %rd88, 5120;
	// begin inline asm
	ld.global.cg.v4.u32 {%r228,%r229,%r230,%r231}, [%rd74];
	// end inline asm
	add.s64 	%rd75, %rd88, 5632;
	// begin inline asm
	ld.global.cg.v4.u32 {%r232,%r233,%r234,%r235}, [%rd75];
	// end inline asm
	add.s64 	%rd76, %rd89, 4096;
	// begin inline asm
	st.global.cg.v4.u32 [%rd76], {%r220,%r221,%r222,%r223};
	// end inline asm
	add.s64 	%rd77, %rd89, 4608;
	// begin inline asm
	st.global.cg.v4.u32 [%rd77], {%r224,%r225,%r226,%r227};
	// end inline asm
	add.s64 	%rd78, %rd89, 5120;
	// begin inline asm
	st.global.cg.v4.u32 [%rd78], {%r228,%r229,%r230,%r231};
	// end inline asm
	add.s64 	%rd79, %rd89, 5632;
	// begin inline asm
	st.global.cg.v4.u32 [%rd79], {%r232,%r233,%r234,%r235};
	// end inline asm
	add.s64 	%rd80, %rd88, 6144;
	// begin inline asm
	ld.global.cg.v4.u32 {%r252,%r253,%r254,%r255}, [%rd80];
	// end inline asm
	add.s64 	%rd81, %rd88, 6656;
	// begin inline asm
	ld.global.cg.v4.u32 {%r256,%r257,%r258,%r259}, [%rd81];
	// end inline asm
	add.s64 	%rd82, %rd88, 7168;
	// begin inline asm
	ld.global.cg.v4.u32 {%r260,%r261,%r262,%r263}, [%rd82];
	// end inline asm
	add.s64 	%rd83, %rd88, 7680;
	// begin inline asm
	ld.global.cg.v4.u32 {%r264,%r265,%r266,%r267}, [%rd83];
	// end inline asm
	add.s64 	%rd84, %rd89, 6144;
	// begin inline asm
	st.global.cg.v4.u32 [%rd84], {%r252,%r253,%r254,%r255};
	// end inline asm
	add.s64 	%rd85, %rd89, 6656;
	// begin inline asm
	st.global.cg.v4.u32 [%rd85], {%r256,%r257,%r258,%r259};
	// end inline asm
	add.s64 	%rd86, %rd89, 7168;
	// begin inline asm
	st.global.cg.v4.u32 [%rd86], {%r260,%r261,%r262,%r263};
	// end inline asm
	add.s64 	%rd87, %rd89, 7680;
	// begin inline asm
	st.global.cg.v4.u32 [%rd87], {%r264,%r265,%r266,%r267};
	// end inline asm
	add.s64 	%rd111, %rd111, 8192;
	add.s32 	%r353, %r353, 512;
	setp.lt.u32 	%p7, %r353, %r6;
	@%p7 bra 	$L__BB0_9;

	add.s32 	%r352, %r353, -96;

$L__BB0_11:
	setp.ge.u32 	%p8, %r352, %r6;
	@%p8 bra 	$L__BB0_18;

	not.b32 	%r284, %r352;
	add.s32 	%r21, %r6, %r284;
	shr.u32 	%r285, %r21, 5;
	add.s32 	%r286, %r285, 1;
	and.b32  	%r22, %r286, 3;
	setp.eq.s32 	%p9, %r22, 0;
	mov.u32 	%r355, %r352;
	@%p9 bra 	$L__BB0_16;

	mul.wide.u32 	%rd92, %r352, 16;
	add.s64 	%rd91, %rd6, %rd92;
	add.s64 	%rd90, %rd5, %rd92;
	// begin inline asm
	ld.global.cg.v4.u32 {%r287,%r288,%r289,%r290}, [%rd90];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd91], {%r287,%r288,%r289,%r290};
	// end inline asm
	add.s32 	%r355, %r352, 32;
	setp.eq.s32 	%p10, %r22, 1;
	@%p10 bra 	$L__BB0_16;

	mul.wide.u32 	%rd95, %r355, 16;
	add.s64 	%rd94, %rd6, %rd95;
	add.s64 	%rd93, %rd5, %rd95;
	// begin inline asm
	ld.global.cg.v4.u32 {%r295,%r296,%r297,%r298}, [%rd93];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd94], {%r295,%r296,%r297,%r298};
	// end inline asm
	add.s32 	%r355, %r352, 64;
	setp.eq.s32 	%p11, %r22, 2;
	@%p11 bra 	$L__BB0_16;

	mul.wide.u32 	%rd98, %r355, 16;
	add.s64 	%rd97, %rd6, %rd98;
	add.s64 	%rd96, %rd5, %rd98;
	// begin inline asm
	ld.global.cg.v4.u32 {%r303,%r304,%r305,%r306}, [%rd96];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd97], {%r303,%r304,%r305,%r306};
	// end inline asm
	add.s32 	%r355, %r352, 96;

$L__BB0_16:
	setp.lt.u32 	%p12, %r21, 96;
	@%p12 bra 	$L__BB0_18;

$L__BB0_17:
	mul.wide.u32 	%rd107, %r355, 16;
	add.s64 	%rd100, %rd6, %rd107;
	add.s64 	%rd99, %rd5, %rd107;
	// begin inline asm
	ld.global.cg.v4.u32 {%r311,%r312,%r313,%r314}, [%rd99];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd100], {%r311,%r312,%r313,%r314};
	// end inline asm
	add.s32 	%r343, %r355, 32;
	mul.wide.u32 	%rd108, %r343, 16;
	add.s64 	%rd102, %rd6, %rd108;
	add.s64 	%rd101, %rd5, %rd108;
	// begin inline asm
	ld.global.cg.v4.u32 {%r319,%r320,%r321,%r322}, [%rd101];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd102], {%r319,%r320,%r321,%r322};
	// end inline asm
	add.s32 	%r344, %r355, 64;
	mul.wide.u32 	%rd109, %r344, 16;
	add.s64 	%rd104, %rd6, %rd109;
	add.s64 	%rd103, %rd5, %rd109;
	// begin inline asm
	ld.global.cg.v4.u32 {%r327,%r328,%r329,%r330}, [%rd103];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd104], {%r327,%r328,%r329,%r330};
	// end inline asm
	add.s32 	%r345, %r355, 96;
	mul.wide.u32 	%rd110, %r345, 16;
	add.s64 	%rd106, %rd6, %rd110;
	add.s64 	%rd105, %rd5, %rd110;
	// begin inline asm
	ld.global.cg.v4.u32 {%r335,%r336,%r337,%r338}, [%rd105];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd106], {%r335,%r336,%r337,%r338};
	// end inline asm
	add.s32 	%r355, %r355, 128;
	setp.lt.u32 	%p13, %r355, %r6;
	@%p13 bra 	$L__BB0_17;

$L__BB0_18:
	mov.u32 	%r348, %nctaid.x;
	mad.lo.s32 	%r350, %r31, %r348, %r350;
	setp.lt.u32 	%p14, %r350, %r34;
	@%p14 bra 	$L__BB0_2;

$L__BB0_19:
	ret;

}
	// .globl	scatter_16
.visible .entry scatter_16(
	.param .align 8 .b8 scatter_16_param_0[3872]
)
.maxntid 1024, 1, 1
{
	.reg .pred 	%p<15>;
	.reg .b32 	%r<357>;
	.reg .b64 	%rd<112>;

	mov.b64 	%rd14, scatter_16_param_0;
	mov.u32 	%r30, %ntid.x;
	shr.u32 	%r31, %r30, 5;
	add.s64 	%rd1, %rd14, 24;
	ld.param.v2.u32 	{%r32, %r33}, [scatter_16_param_0+24];
	mul.lo.s32 	%r34, %r32, %r33;
	mov.u32 	%r35, %ctaid.x;
	mov.u32 	%r36, %tid.x;
	shr.u32 	%r37, %r36, 5;
	mad.lo.s32 	%r350, %r31, %r35, %r37;
	setp.ge.u32 	%p1, %r350, %r34;
	@%p1 bra 	$L__BB1_19;

	ld.param.u32 	%r4, [%rd1];
	ld.param.u64 	%rd2, [%rd1+-24];
	ld.param.u64 	%rd3, [%rd1+-16];
	ld.param.u64 	%rd4, [%rd1+-8];
	cvta.to.global.u64 	%rd16, %rd2;

$L__BB1_2:
	div.u32 	%r38, %r350, %r4;
	mul.lo.s32 	%r39, %r38, %r4;
	sub.s32 	%r40, %r350, %r39;
	mul.wide.u32 	%rd17, %r40, 24;
	add.s64 	%rd18, %rd16, %rd17;
	ld.global.v2.u32 	{%r41, %r42}, [%rd18+16];
	cvt.u64.u32 	%rd19, %r38;
	mul.wide.u32 	%rd21, %r38, 4;
	add.s64 	%rd22, %rd14, %rd21;
	ld.param.u32 	%rd23, [%rd22+32];
	ld.global.u64 	%rd24, [%rd18+8];
	mul.lo.s64 	%rd25, %rd24, %rd23;
	ld.global.u64 	%rd26, [%rd18];
	add.s64 	%rd5, %rd25, %rd26;
	mul.lo.s64 	%rd27, %rd4, %rd19;
	cvt.u64.u32 	%rd28, %r41;
	add.s64 	%rd29, %rd3, %rd28;
	add.s64 	%rd6, %rd29, %rd27;
	shr.u32 	%r6, %r42, 4;
	and.b32  	%r352, %r36, 31;
	or.b32  	%r46, %r352, 96;
	setp.ge.u32 	%p2, %r46, %r6;
	@%p2 bra 	$L__BB1_11;

	and.b32  	%r352, %r36, 31;
	mov.u32 	%r49, -97;
	sub.s32 	%r50, %r49, %r352;
	add.s32 	%r9, %r50, %r6;
	shr.u32 	%r51, %r9, 7;
	add.s32 	%r52, %r51, 1;
	and.b32  	%r10, %r52, 3;
	setp.eq.s32 	%p3, %r10, 0;
	@%p3 bra 	$L__BB1_7;

	and.b32  	%r86, %r36, 31;
	shl.b32 	%r87, %r36, 4;
	cvt.u64.u32 	%rd38, %r87;
	and.b64  	%rd39, %rd38, 496;
	add.s64 	%rd30, %rd6, %rd39;
	// begin inline asm
	ld.global.cg.v4.u32 {%r53,%r54,%r55,%r56}, [%rd30];
	// end inline asm
	add.s64 	%rd31, %rd30, 512;
	// begin inline asm
	ld.global.cg.v4.u32 {%r57,%r58,%r59,%r60}, [%rd31];
	// end inline asm
	add.s64 	%rd32, %rd30, 1024;
	// begin inline asm
	ld.global.cg.v4.u32 {%r61,%r62,%r63,%r64}, [%rd32];
	// end inline asm
	add.s64 	%rd33, %rd30, 1536;
	// begin inline asm
	ld.global.cg.v4.u32 {%r65,%r66,%r67,%r68}, [%rd33];
	// end inline asm
	add.s64 	%rd34, %rd5, %rd39;
	// begin inline asm
	st.global.cg.v4.u32 [%rd34], {%r53,%r54,%r55,%r56};
	// end inline asm
	add.s64 	%rd35, %rd34, 512;
	// begin inline asm
	st.global.cg.v4.u32 [%rd35], {%r57,%r58,%r59,%r60};
	// end inline asm
	add.s64 	%rd36, %rd34, 1024;
	// begin inline asm
	st.global.cg.v4.u32 [%rd36], {%r61,%r62,%r63,%r64};
	// end inline asm
	add.s64 	%rd37, %rd34, 1536;
	// begin inline asm
	st.global.cg.v4.u32 [%rd37], {%r65,%r66,%r67,%r68};
	// end inline asm
	or.b32  	%r352, %r86, 128;
	setp.eq.s32 	%p4, %r10, 1;
	@%p4 bra 	$L__BB1_7;

	add.s64 	%rd40, %rd30, 2048;
	// begin inline asm
	ld.global.cg.v4.u32 {%r88,%r89,%r90,%r91}, [%rd40];
	// end inline asm
	add.s64 	%rd41, %rd30, 2560;
	// begin inline asm
	ld.global.cg.v4.u32 {%r92,%r93,%r94,%r95}, [%rd41];
	// end inline asm
	add.s64 	%rd42, %rd30, 3072;
	// begin inline asm
	ld.global.cg.v4.u32 {%r96,%r97,%r98,%r99}, [%rd42];
	// end inline asm
	add.s64 	%rd43, %rd30, 3584;
	// begin inline asm
	ld.global.cg.v4.u32 {%r100,%r101,%r102,%r103}, [%rd43];
	// end inline asm
	add.s64 	%rd44, %rd34, 2048;
	// begin inline asm
	st.global.cg.v4.u32 [%rd44], {%r88,%r89,%r90,%r91};
	// end inline asm
	add.s64 	%rd45, %rd34, 2560;
	// begin inline asm
	st.global.cg.v4.u32 [%rd45], {%r92,%r93,%r94,%r95};
	// end inline asm
	add.s64 	%rd46, %rd34, 3072;
	// begin inline asm
	st.global.cg.v4.u32 [%rd46], {%r96,%r97,%r98,%r99};
	// end inline asm
	add.s64 	%rd47, %rd34, 3584;
	// begin inline asm
	st.global.cg.v4.u32 [%rd47], {%r100,%r101,%r102,%r103};
	// end inline asm
	or.b32  	%r352, %r86, 256;
	setp.eq.s32 	%p5, %r10, 2;
	@%p5 bra 	$L__BB1_7;

	add.s64 	%rd48, %rd30, 4096;
	// begin inline asm
	ld.global.cg.v4.u32 {%r122,%r123,%r124,%r125}, [%rd48];
	// end inline asm
	add.s64 	%rd49, %rd30, 4608;
	// begin inline asm
	ld.global.cg.v4.u32 {%r126,%r127,%r128,%r129}, [%rd49];
	// end inline asm
	add.s64 	%rd50, %rd30, 5120;
	// begin inline asm
	ld.global.cg.v4.u32 {%r130,%r131,%r132,%r133}, [%rd50];
	// end inline asm
	add.s64 	%rd51, %rd30, 5632;
	// begin inline asm
	ld.global.cg.v4.u32 {%r134,%r135,%r136,%r137}, [%rd51];
	// end inline asm
	add.s64 	%rd52, %rd34, 4096;
	// begin inline asm
	st.global.cg.v4.u32 [%rd52], {%r122,%r123,%r124,%r125};
	// end inline asm
	add.s64 	%rd53, %rd34, 4608;
	// begin inline asm
	st.global.cg.v4.u32 [%rd53], {%r126,%r127,%r128,%r129};
	// end inline asm
	add.s64 	%rd54, %rd34, 5120;
	// begin inline asm
	st.global.cg.v4.u32 [%rd54], {%r130,%r131,%r132,%r133};
	// end inline asm
	add.s64 	%rd55, %rd34, 5632;
	// begin inline asm
	st.global.cg.v4.u32 [%rd55], {%r134,%r135,%r136,%r137};
	// end inline asm
	or.b32  	%r352, %r86, 384;

$L__BB1_7:
	setp.lt.u32 	%p6, %r9, 384;
	@%p6 bra 	$L__BB1_11;

	add.s32 	%r353, %r352, 96;
	mul.wide.u32 	%rd111, %r352, 16;

$L__BB1_9:
	add.s64 	%rd88, %rd6, %rd111;
	add.s64 	%rd89, %rd5, %rd111;
	// begin inline asm
	ld.global.cg.v4.u32 {%r156,%r157,%r158,%r159}, [%rd88];
	// end inline asm
	add.s64 	%rd57, %rd88, 512;
	// begin inline asm
	ld.global.cg.v4.u32 {%r160,%r161,%r162,%r163}, [%rd57];
	// end inline asm
	add.s64 	%rd58, %rd88, 1024;
	// begin inline asm
	ld.global.cg.v4.u32 {%r164,%r165,%r166,%r167}, [%rd58];
	// end inline asm
	add.s64 	%rd59, %rd88, 1536;
	// begin inline asm
	ld.global.cg.v4.u32 {%r168,%r169,%r170,%r171}, [%rd59];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd89], {%r156,%r157,%r158,%r159};
	// end inline asm
	add.s64 	%rd61, %rd89, 512;
	// begin inline asm
	st.global.cg.v4.u32 [%rd61], {%r160,%r161,%r162,%r163};
	// end inline asm
	add.s64 	%rd62, %rd89, 1024;
	// begin inline asm
	st.global.cg.v4.u32 [%rd62], {%r164,%r165,%r166,%r167};
	// end inline asm
	add.s64 	%rd63, %rd89, 1536;
	// begin inline asm
	st.global.cg.v4.u32 [%rd63], {%r168,%r169,%r170,%r171};
	// end inline asm
	add.s64 	%rd64, %rd88, 2048;
	// begin inline asm
	ld.global.cg.v4.u32 {%r188,%r189,%r190,%r191}, [%rd64];
	// end inline asm
	add.s64 	%rd65, %rd88, 2560;
	// begin inline asm
	ld.global.cg.v4.u32 {%r192,%r193,%r194,%r195}, [%rd65];
	// end inline asm
	add.s64 	%rd66, %rd88, 3072;
	// begin inline asm
	ld.global.cg.v4.u32 {%r196,%r197,%r198,%r199}, [%rd66];
	// end inline asm
	add.s64 	%rd67, %rd88, 3584;
	// begin inline asm
	ld.global.cg.v4.u32 {%r200,%r201,%r202,%r203}, [%rd67];
	// end inline asm
	add.s64 	%rd68, %rd89, 2048;
	// begin inline asm
	st.global.cg.v4.u32 [%rd68], {%r188,%r189,%r190,%r191};
	// end inline asm
	add.s64 	%rd69, %rd89, 2560;
	// begin inline asm
	st.global.cg.v4.u32 [%rd69], {%r192,%r193,%r194,%r195};
	// end inline asm
	add.s64 	%rd70, %rd89, 3072;
	// begin inline asm
	st.global.cg.v4.u32 [%rd70], {%r196,%r197,%r198,%r199};
	// end inline asm
	add.s64 	%rd71, %rd89, 3584;
	// begin inline asm
	st.global.cg.v4.u32 [%rd71], {%r200,%r201,%r202,%r203};
	// end inline asm
	add.s64 	%rd72, %rd88, 4096;
	// begin inline asm
	ld.global.cg.v4.u32 {%r220,%r221,%r222,%r223}, [%rd72];
	// end inline asm
	add.s64 	%rd73, %rd88, 4608;
	// begin inline asm
	ld.global.cg.v4.u32 {%r224,%r225,%r226,%r227}, [%rd73];
	// end inline asm
	add.s64 	%rd74, %rd88, 5120;
	// begin inline asm
	ld.global.cg.v4.u32 {%r228,%r229,%r230,%r231}, [%rd74];
	// end inline asm
	add.s64 	%rd75, %rd88, 5632;
	// begin inline asm
	ld.global.cg.v4.u32 {%r232,%r233,%r234,%r235}, [%rd75];
	// end inline asm
	add.s64 	%rd76, %rd89, 4096;
	// begin inline asm
	st.global.cg.v4.u32 [%rd76], {%r220,%r221,%r222,%r223};
	// end inline asm
	add.s64 	%rd77, %rd89, 4608;
	// begin inline asm
	st.global.cg.v4.u32 [%rd77], {%r224,%r225,%r226,%r227};
	// end inline asm
	add.s64 	%rd78, %rd89, 5120;
	// begin inline asm
	st.global.cg.v4.u32 [%rd78], {%r228,%r229,%r230,%r231};
	// end inline asm
	add.s64 	%rd79, %rd89, 5632;
	// begin inline asm
	st.global.cg.v4.u32 [%rd79], {%r232,%r233,%r234,%r235};
	// end inline asm
	add.s64 	%rd80, %rd88, 6144;
	// begin inline asm
	ld.global.cg.v4.u32 {%r252,%r253,%r254,%r255}, [%rd80];
	// end inline asm
	add.s64 	%rd81, %rd88, 6656;
	// begin inline asm
	ld.global.cg.v4.u32 {%r256,%r257,%r258,%r259}, [%rd81];
	// end inline asm
	add.s64 	%rd82, %rd88, 7168;
	// begin inline asm
	ld.global.cg.v4.u32 {%r260,%r261,%r262,%r263}, [%rd82];
	// end inline asm
	add.s64 	%rd83, %rd88, 7680;
	// begin inline asm
	ld.global.cg.v4.u32 {%r264,%r265,%r266,%r267}, [%rd83];
	// end inline asm
	add.s64 	%rd84, %rd89, 6144;
	// begin inline asm
	st.global.cg.v4.u32 [%rd84], {%r252,%r253,%r254,%r255};
	// end inline asm
	add.s64 	%rd85, %rd89, 6656;
	// begin inline asm
	st.global.cg.v4.u32 [%rd85], {%r256,%r257,%r258,%r259};
	// end inline asm
	add.s64 	%rd86, %rd89, 7168;
	// begin inline asm
	st.global.cg.v4.u32 [%rd86], {%r260,%r261,%r262,%r263};
	// end inline asm
	add.s64 	%rd87, %rd89, 7680;
	// begin inline asm
	st.global.cg.v4.u32 [%rd87], {%r264,%r265,%r266,%r267};
	// end inline asm
	add.s64 	%rd111, %rd111, 8192;
	add.s32 	%r353, %r353, 512;
	setp.lt.u32 	%p7, %r353, %r6;
	@%p7 bra 	$L__BB1_9;

	add.s32 	%r352, %r353, -96;

$L__BB1_11:
	setp.ge.u32 	%p8, %r352, %r6;
	@%p8 bra 	$L__BB1_18;

	not.b32 	%r284, %r352;
	add.s32 	%r21, %r6, %r284;
	shr.u32 	%r285, %r21, 5;
	add.s32 	%r286, %r285, 1;
	and.b32  	%r22, %r286, 3;
	setp.eq.s32 	%p9, %r22, 0;
	mov.u32 	%r355, %r352;
	@%p9 bra 	$L__BB1_16;

	mul.wide.u32 	%rd92, %r352, 16;
	add.s64 	%rd91, %rd5, %rd92;
	add.s64 	%rd90, %rd6, %rd92;
	// begin inline asm
	ld.global.cg.v4.u32 {%r287,%r288,%r289,%r290}, [%rd90];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd91], {%r287,%r288,%r289,%r290};
	// end inline asm
	add.s32 	%r355, %r352, 32;
	setp.eq.s32 	%p10, %r22, 1;
	@%p10 bra 	$L__BB1_16;

	mul.wide.u32 	%rd95, %r355, 16;
	add.s64 	%rd94, %rd5, %rd95;
	add.s64 	%rd93, %rd6, %rd95;
	// begin inline asm
	ld.global.cg.v4.u32 {%r295,%r296,%r297,%r298}, [%rd93];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd94], {%r295,%r296,%r297,%r298};
	// end inline asm
	add.s32 	%r355, %r352, 64;
	setp.eq.s32 	%p11, %r22, 2;
	@%p11 bra 	$L__BB1_16;

	mul.wide.u32 	%rd98, %r355, 16;
	add.s64 	%rd97, %rd5, %rd98;
	add.s64 	%rd96, %rd6, %rd98;
	// begin inline asm
	ld.global.cg.v4.u32 {%r303,%r304,%r305,%r306}, [%rd96];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd97], {%r303,%r304,%r305,%r306};
	// end inline asm
	add.s32 	%r355, %r352, 96;

$L__BB1_16:
	setp.lt.u32 	%p12, %r21, 96;
	@%p12 bra 	$L__BB1_18;

$L__BB1_17:
	mul.wide.u32 	%rd107, %r355, 16;
	add.s64 	%rd100, %rd5, %rd107;
	add.s64 	%rd99, %rd6, %rd107;
	// begin inline asm
	ld.global.cg.v4.u32 {%r311,%r312,%r313,%r314}, [%rd99];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd100], {%r311,%r312,%r313,%r314};
	// end inline asm
	add.s32 	%r343, %r355, 32;
	mul.wide.u32 	%rd108, %r343, 16;
	add.s64 	%rd102, %rd5, %rd108;
	add.s64 	%rd101, %rd6, %rd108;
	// begin inline asm
	ld.global.cg.v4.u32 {%r319,%r320,%r321,%r322}, [%rd101];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd102], {%r319,%r320,%r321,%r322};
	// end inline asm
	add.s32 	%r344, %r355, 64;
	mul.wide.u32 	%rd109, %r344, 16;
	add.s64 	%rd104, %rd5, %rd109;
	add.s64 	%rd103, %rd6, %rd109;
	// begin inline asm
	ld.global.cg.v4.u32 {%r327,%r328,%r329,%r330}, [%rd103];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd104], {%r327,%r328,%r329,%r330};
	// end inline asm
	add.s32 	%r345, %r355, 96;
	mul.wide.u32 	%rd110, %r345, 16;
	add.s64 	%rd106, %rd5, %rd110;
	add.s64 	%rd105, %rd6, %rd110;
	// begin inline asm
	ld.global.cg.v4.u32 {%r335,%r336,%r337,%r338}, [%rd105];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd106], {%r335,%r336,%r337,%r338};
	// end inline asm
	add.s32 	%r355, %r355, 128;
	setp.lt.u32 	%p13, %r355, %r6;
	@%p13 bra 	$L__BB1_17;

$L__BB1_18:
	mov.u32 	%r348, %nctaid.x;
	mad.lo.s32 	%r350, %r31, %r348, %r350;
	setp.lt.u32 	%p14, %r350, %r34;
	@%p14 bra 	$L__BB1_2;

$L__BB1_19:
	ret;

}
	// .globl	gather_4
.visible .entry gather_4(
	.param .align 8 .b8 gather_4_param_0[3872]
)
.maxntid 1024, 1, 1
{
	.reg .pred 	%p<15>;
	.reg .b32 	%r<147>;
	.reg .b64 	%rd<112>;

	mov.b64 	%rd14, gather_4_param_0;
	mov.u32 	%r30, %ntid.x;
	shr.u32 	%r31, %r30, 5;
	add.s64 	%rd1, %rd14, 24;
	ld.param.v2.u32 	{%r32, %r33}, [gather_4_param_0+24];
	mul.lo.s32 	%r34, %r32, %r33;
	mov.u32 	%r35, %ctaid.x;
	mov.u32 	%r36, %tid.x;
	shr.u32 	%r37, %r36, 5;
	mad.lo.s32 	%r140, %r31, %r35, %r37;
	setp.ge.u32 	%p1, %r140, %r34;
	@%p1 bra 	$L__BB2_19;

	ld.param.u32 	%r4, [%rd1];
	ld.param.u64 	%rd2, [%rd1+-24];
	ld.param.u64 	%rd3, [%rd1+-16];
	ld.param.u64 	%rd4, [%rd1+-8];
	cvta.to.global.u64 	%rd16, %rd2;

$L__BB2_2:
	div.u32 	%r38, %r140, %r4;
	mul.lo.s32 	%r39, %r38, %r4;
	sub.s32 	%r40, %r140, %r39;
	mul.wide.u32 	%rd17, %r40, 24;
	add.s64 	%rd18, %rd16, %rd17;
	ld.global.v2.u32 	{%r41, %r42}, [%rd18+16];
	cvt.u64.u32 	%rd19, %r38;
	mul.wide.u32 	%rd21, %r38, 4;
	add.s64 	%rd22, %rd14, %rd21;
	ld.param.u32 	%rd23, [%rd22+32];
	ld.global.u64 	%rd24, [%rd18+8];
	mul.lo.s64 	%rd25, %rd24, %rd23;
	ld.global.u64 	%rd26, [%rd18];
	add.s64 	%rd5, %rd25, %rd26;
	mul.lo.s64 	%rd27, %rd4, %rd19;
	cvt.u64.u32 	%rd28, %r41;
	add.s64 	%rd29, %rd3, %rd28;
	add.s64 	%rd6, %rd29, %rd27;
	shr.u32 	%r6, %r42, 2;
	and.b32  	%r142, %r36, 31;
	or.b32  	%r46, %r142, 96;
	setp.ge.u32 	%p2, %r46, %r6;
	@%p2 bra 	$L__BB2_11;

	and.b32  	%r142, %r36, 31;
	mov.u32 	%r49, -97;
	sub.s32 	%r50, %r49, %r142;
	add.s32 	%r9, %r50, %r6;
	shr.u32 	%r51, %r9, 7;
	add.s32 	%r52, %r51, 1;
	and.b32  	%r10, %r52, 3;
	setp.eq.s32 	%p3, %r10, 0;
	@%p3 bra 	$L__BB2_7;

	and.b32  	%r62, %r36, 31;
	shl.b32 	%r63, %r36, 2;
	cvt.u64.u32 	%rd38, %r63;
	and.b64  	%rd39, %rd38, 124;
	add.s64 	%rd30, %rd5, %rd39;
	// begin inline asm
	ld.global.cg.u32 %r53, [%rd30];
	// end inline asm
	add.s64 	%rd31, %rd30, 128;
	// begin inline asm
	ld.global.cg.u32 %r54, [%rd31];
	// end inline asm
	add.s64 	%rd32, %rd30, 256;
	// begin inline asm
	ld.global.cg.u32 %r55, [%rd32];
	// end inline asm
	add.s64 	%rd33, %rd30, 384;
	// begin inline asm
	ld.global.cg.u32 %r56, [%rd33];
	// end inline asm
	add.s64 	%rd34, %rd6, %rd39;
	// begin inline asm
	st.global.cg.u32 [%rd34], %r53;
	// end inline asm
	add.s64 	%rd35, %rd34, 128;
	// begin inline asm
	st.global.cg.u32 [%rd35], %r54;
	// end inline asm
	add.s64 	%rd36, %rd34, 256;
	// begin inline asm
	st.global.cg.u32 [%rd36], %r55;
	// end inline asm
	add.s64 	%rd37, %rd34, 384;
	// begin inline asm
	st.global.cg.u32 [%rd37], %r56;
	// end inline asm
	or.b32  	%r142, %r62, 128;
	setp.eq.s32 	%p4, %r10, 1;
	@%p4 bra 	$L__BB2_7;

	add.s64 	%rd40, %rd30, 512;
	// begin inline asm
	ld.global.cg.u32 %r64, [%rd40];
	// end inline asm
	add.s64 	%rd41, %rd30, 640;
	// begin inline asm
	ld.global.cg.u32 %r65, [%rd41];
	// end inline asm
	add.s64 	%rd42, %rd30, 768;
	// begin inline asm
	ld.global.cg.u32 %r66, [%rd42];
	// end inline asm
	add.s64 	%rd43, %rd30, 896;
	// begin inline asm
	ld.global.cg.u32 %r67, [%rd43];
	// end inline asm
	add.s64 	%rd44, %rd34, 512;
	// begin inline asm
	st.global.cg.u32 [%rd44], %r64;
	// end inline asm
	add.s64 	%rd45, %rd34, 640;
	// begin inline asm
	st.global.cg.u32 [%rd45], %r65;
	// end inline asm
	add.s64 	%rd46, %rd34, 768;
	// begin inline asm
	st.global.cg.u32 [%rd46], %r66;
	// end inline asm
	add.s64 	%rd47, %rd34, 896;
	// begin inline asm
	st.global.cg.u32 [%rd47], %r67;
	// end inline asm
	or.b32  	%r142, %r62, 256;
	setp.eq.s32 	%p5, %r10, 2;
	@%p5 bra 	$L__BB2_7;

	add.s64 	%rd48, %rd30, 1024;
	// begin inline asm
	ld.global.cg.u32 %r74, [%rd48];
	// end inline asm
	add.s64 	%rd49, %rd30, 1152;
	// begin inline asm
	ld.global.cg.u32 %r75, [%rd49];
	// end inline asm
	add.s64 	%rd50, %rd30, 1280;
	// begin inline asm
	ld.global.cg.u32 %r76, [%rd50];
	// end inline asm
	add.s64 	%rd51, %rd30, 1408;
	// begin inline asm
	ld.global.cg.u32 %r77, [%rd51];
	// end inline asm
	add.s64 	%rd52, %rd34, 1024;
	// begin inline asm
	st.global.cg.u32 [%rd52], %r74;
	// end inline asm
	add.s64 	%rd53, %rd34, 1152;
	// begin inline asm
	st.global.cg.u32 [%rd53], %r75;
	// end inline asm
	add.s64 	%rd54, %rd34, 1280;
	// begin inline asm
	st.global.cg.u32 [%rd54], %r76;
	// end inline asm
	add.s64 	%rd55, %rd34, 1408;
	// begin inline asm
	st.global.cg.u32 [%rd55], %r77;
	// end inline asm
	or.b32  	%r142, %r62, 384;

$L__BB2_7:
	setp.lt.u32 	%p6, %r9, 384;
	@%p6 bra 	$L__BB2_11;

	add.s32 	%r143, %r142, 96;
	mul.wide.u32 	%rd111, %r142, 4;

$L__BB2_9:
	add.s64 	%rd88, %rd5, %rd111;
	add.s64 	%rd89, %rd6, %rd111;
	// begin inline asm
	ld.global.cg.u32 %r84, [%rd88];
	// end inline asm
	add.s64 	%rd57, %rd88, 128;
	// begin inline asm
	ld.global.cg.u32 %r85, [%rd57];
	// end inline asm
	add.s64 	%rd58, %rd88, 256;
	// begin inline asm
	ld.global.cg.u32 %r86, [%rd58];
	// end inline asm
	add.s64 	%rd59, %rd88, 384;
	// begin inline asm
	ld.global.cg.u32 %r87, [%rd59];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd89], %r84;
	// end inline asm
	add.s64 	%rd61, %rd89, 128;
	// begin inline asm
	st.global.cg.u32 [%rd61], %r85;
	// end inline asm
	add.s64 	%rd62, %rd89, 256;
	// begin inline asm
	st.global.cg.u32 [%rd62], %r86;
	// end inline asm
	add.s64 	%rd63, %rd89, 384;
	// begin inline asm
	st.global.cg.u32 [%rd63], %r87;
	// end inline asm
	add.s64 	%rd64, %rd88, 512;
	// begin inline asm
	ld.global.cg.u32 %r92, [%rd64];
	// end inline asm
	add.s64 	%rd65, %rd88, 640;
	// begin inline asm
	ld.global.cg.u32 %r93, [%rd65];
	// end inline asm
	add.s64 	%rd66, %rd88, 768;
	// begin inline asm
	ld.global.cg.u32 %r94, [%rd66];
	// end inline asm
	add.s64 	%rd67, %rd88, 896;
	// begin inline asm
	ld.global.cg.u32 %r95, [%rd67];
	// end inline asm
	add.s64 	%rd68, %rd89, 512;
	// begin inline asm
	st.global.cg.u32 [%rd68], %r92;
	// end inline asm
	add.s64 	%rd69, %rd89, 640;
	// begin inline asm
	st.global.cg.u32 [%rd69], %r93;
	// end inline asm
	add.s64 	%rd70, %rd89, 768;
	// begin inline asm
	st.global.cg.u32 [%rd70], %r94;
	// end inline asm
	add.s64 	%rd71, %rd89, 896;
	// begin inline asm
	st.global.cg.u32 [%rd71], %r95;
	// end inline asm
	add.s64 	%rd72, %rd88, 1024;
	// begin inline asm
	ld.global.cg.u32 %r100, [%rd72];
	// end inline asm
	add.s64 	%rd73, %rd88, 1152;
	// begin inline asm
	ld.global.cg.u32 %r101, [%rd73];
	// end inline asm
	add.s64 	%rd74, %rd88, 1280;
	// begin inline asm
	ld.global.cg.u32 %r102, [%rd74];
	// end inline asm
	add.s64 	%rd75, %rd88, 1408;
	// begin inline asm
	ld.global.cg.u32 %r103, [%rd75];
	// end inline asm
	add.s64 	%rd76, %rd89, 1024;
	// begin inline asm
	st.global.cg.u32 [%rd76], %r100;
	// end inline asm
	add.s64 	%rd77, %rd89, 1152;
	// begin inline asm
	st.global.cg.u32 [%rd77], %r101;
	// end inline asm
	add.s64 	%rd78, %rd89, 1280;
	// begin inline asm
	st.global.cg.u32 [%rd78], %r102;
	// end inline asm
	add.s64 	%rd79, %rd89, 1408;
	// begin inline asm
	st.global.cg.u32 [%rd79], %r103;
	// end inline asm
	add.s64 	%rd80, %rd88, 1536;
	// begin inline asm
	ld.global.cg.u32 %r108, [%rd80];
	// end inline asm
	add.s64 	%rd81, %rd88, 1664;
	// begin inline asm
	ld.global.cg.u32 %r109, [%rd81];
	// end inline asm
	add.s64 	%rd82, %rd88, 1792;
	// begin inline asm
	ld.global.cg.u32 %r110, [%rd82];
	// end inline asm
	add.s64 	%rd83, %rd88, 1920;
	// begin inline asm
	ld.global.cg.u32 %r111, [%rd83];
	// end inline asm
	add.s64 	%rd84, %rd89, 1536;
	// begin inline asm
	st.global.cg.u32 [%rd84], %r108;
	// end inline asm
	add.s64 	%rd85, %rd89, 1664;
	// begin inline asm
	st.global.cg.u32 [%rd85], %r109;
	// end inline asm
	add.s64 	%rd86, %rd89, 1792;
	// begin inline asm
	st.global.cg.u32 [%rd86], %r110;
	// end inline asm
	add.s64 	%rd87, %rd89, 1920;
	// begin inline asm
	st.global.cg.u32 [%rd87], %r111;
	// end inline asm
	add.s64 	%rd111, %rd111, 2048;
	add.s32 	%r143, %r143, 512;
	setp.lt.u32 	%p7, %r143, %r6;
	@%p7 bra 	$L__BB2_9;

	add.s32 	%r142, %r143, -96;

$L__BB2_11:
	setp.ge.u32 	%p8, %r142, %r6;
	@%p8 bra 	$L__BB2_18;

	not.b32 	%r116, %r142;
	add.s32 	%r21, %r6, %r116;
	shr.u32 	%r117, %r21, 5;
	add.s32 	%r118, %r117, 1;
	and.b32  	%r22, %r118, 3;
	setp.eq.s32 	%p9, %r22, 0;
	mov.u32 	%r145, %r142;
	@%p9 bra 	$L__BB2_16;

	mul.wide.u32 	%rd92, %r142, 4;
	add.s64 	%rd91, %rd6, %rd92;
	add.s64 	%rd90, %rd5, %rd92;
	// begin inline asm
	ld.global.cg.u32 %r119, [%rd90];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd91], %r119;
	// end inline asm
	add.s32 	%r145, %r142, 32;
	setp.eq.s32 	%p10, %r22, 1;
	@%p10 bra 	$L__BB2_16;

	mul.wide.u32 	%rd95, %r145, 4;
	add.s64 	%rd94, %rd6, %rd95;
	add.s64 	%rd93, %rd5, %rd95;
	// begin inline asm
	ld.global.cg.u32 %r121, [%rd93];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd94], %r121;
	// end inline asm
	add.s32 	%r145, %r142, 64;
	setp.eq.s32 	%p11, %r22, 2;
	@%p11 bra 	$L__BB2_16;

	mul.wide.u32 	%rd98, %r145, 4;
	add.s64 	%rd97, %rd6, %rd98;
	add.s64 	%rd96, %rd5, %rd98;
	// begin inline asm
	ld.global.cg.u32 %r123, [%rd96];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd97], %r123;
	// end inline asm
	add.s32 	%r145, %r142, 96;

$L__BB2_16:
	setp.lt.u32 	%p12, %r21, 96;
	@%p12 bra 	$L__BB2_18;

$L__BB2_17:
	mul.wide.u32 	%rd107, %r145, 4;
	add.s64 	%rd100, %rd6, %rd107;
	add.s64 	%rd99, %rd5, %rd107;
	// begin inline asm
	ld.global.cg.u32 %r125, [%rd99];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd100], %r125;
	// end inline asm
	add.s32 	%r133, %r145, 32;
	mul.wide.u32 	%rd108, %r133, 4;
	add.s64 	%rd102, %rd6, %rd108;
	add.s64 	%rd101, %rd5, %rd108;
	// begin inline asm
	ld.global.cg.u32 %r127, [%rd101];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd102], %r127;
	// end inline asm
	add.s32 	%r134, %r145, 64;
	mul.wide.u32 	%rd109, %r134, 4;
	add.s64 	%rd104, %rd6, %rd109;
	add.s64 	%rd103, %rd5, %rd109;
	// begin inline asm
	ld.global.cg.u32 %r129, [%rd103];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd104], %r129;
	// end inline asm
	add.s32 	%r135, %r145, 96;
	mul.wide.u32 	%rd110, %r135, 4;
	add.s64 	%rd106, %rd6, %rd110;
	add.s64 	%rd105, %rd5, %rd110;
	// begin inline asm
	ld.global.cg.u32 %r131, [%rd105];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd106], %r131;
	// end inline asm
	add.s32 	%r145, %r145, 128;
	setp.lt.u32 	%p13, %r145, %r6;
	@%p13 bra 	$L__BB2_17;

$L__BB2_18:
	mov.u32 	%r138, %nctaid.x;
	mad.lo.s32 	%r140, %r31, %r138, %r140;
	setp.lt.u32 	%p14, %r140, %r34;
	@%p14 bra 	$L__BB2_2;

$L__BB2_19:
	ret;

}
	// .globl	scatter_4
.visible .entry scatter_4(
	.param .align 8 .b8 scatter_4_param_0[3872]
)
.maxntid 1024, 1, 1
{
	.reg .pred 	%p<15>;
	.reg .b32 	%r<147>;
	.reg .b64 	%rd<112>;

	mov.b64 	%rd14, scatter_4_param_0;
	mov.u32 	%r30, %ntid.x;
	shr.u32 	%r31, %r30, 5;
	add.s64 	%rd1, %rd14, 24;
	ld.param.v2.u32 	{%r32, %r33}, [scatter_4_param_0+24];
	mul.lo.s32 	%r34, %r32, %r33;
	mov.u32 	%r35, %ctaid.x;
	mov.u32 	%r36, %tid.x;
	shr.u32 	%r37, %r36, 5;
	mad.lo.s32 	%r140, %r31, %r35, %r37;
	setp.ge.u32 	%p1, %r140, %r34;
	@%p1 bra 	$L__BB3_19;

	ld.param.u32 	%r4, [%rd1];
	ld.param.u64 	%rd2, [%rd1+-24];
	ld.param.u64 	%rd3, [%rd1+-16];
	ld.param.u64 	%rd4, [%rd1+-8];
	cvta.to.global.u64 	%rd16, %rd2;

$L__BB3_2:
	div.u32 	%r38, %r140, %r4;
	mul.lo.s32 	%r39, %r38, %r4;
	sub.s32 	%r40, %r140, %r39;
	mul.wide.u32 	%rd17, %r40, 24;
	add.s64 	%rd18, %rd16, %rd17;
	ld.global.v2.u32 	{%r41, %r42}, [%rd18+16];
	cvt.u64.u32 	%rd19, %r38;
	mul.wide.u32 	%rd21, %r38, 4;
	add.s64 	%rd22, %rd14, %rd21;
	ld.param.u32 	%rd23, [%rd22+32];
	ld.global.u64 	%rd24, [%rd18+8];
	mul.lo.s64 	%rd25, %rd24, %rd23;
	ld.global.u64 	%rd26, [%rd18];
	add.s64 	%rd5, %rd25, %rd26;
	mul.lo.s64 	%rd27, %rd4, %rd19;
	cvt.u64.u32 	%rd28, %r41;
	add.s64 	%rd29, %rd3, %rd28;
	add.s64 	%rd6, %rd29, %rd27;
	shr.u32 	%r6, %r42, 2;
	and.b32  	%r142, %r36, 31;
	or.b32  	%r46, %r142, 96;
	setp.ge.u32 	%p2, %r46, %r6;
	@%p2 bra 	$L__BB3_11;

	and.b32  	%r142, %r36, 31;
	mov.u32 	%r49, -97;
	sub.s32 	%r50, %r49, %r142;
	add.s32 	%r9, %r50, %r6;
	shr.u32 	%r51, %r9, 7;
	add.s32 	%r52, %r51, 1;
	and.b32  	%r10, %r52, 3;
	setp.eq.s32 	%p3, %r10, 0;
	@%p3 bra 	$L__BB3_7;

	and.b32  	%r62, %r36, 31;
	shl.b32 	%r63, %r36, 2;
	cvt.u64.u32 	%rd38, %r63;
	and.b64  	%rd39, %rd38, 124;
	add.s64 	%rd30, %rd6, %rd39;
	// begin inline asm
	ld.global.cg.u32 %r53, [%rd30];
	// end inline asm
	add.s64 	%rd31, %rd30, 128;
	// begin inline asm
	ld.global.cg.u32 %r54, [%rd31];
	// end inline asm
	add.s64 	%rd32, %rd30, 256;
	// begin inline asm
	ld.global.cg.u32 %r55, [%rd32];
	// end inline asm
	add.s64 	%rd33, %rd30, 384;
	// begin inline asm
	ld.global.cg.u32 %r56, [%rd33];
	// end inline asm
	add.s64 	%rd34, %rd5, %rd39;
	// begin inline asm
	st.global.cg.u32 [%rd34], %r53;
	// end inline asm
	add.s64 	%rd35, %rd34, 128;
	// begin inline asm
	st.global.cg.u32 [%rd35], %r54;
	// end inline asm
	add.s64 	%rd36, %rd34, 256;
	// begin inline asm
	st.global.cg.u32 [%rd36], %r55;
	// end inline asm
	add.s64 	%rd37, %rd34, 384;
	// begin inline asm
	st.global.cg.u32 [%rd37], %r56;
	// end inline asm
	or.b32  	%r142, %r62, 128;
	setp.eq.s32 	%p4, %r10, 1;
	@%p4 bra 	$L__BB3_7;

	add.s64 	%rd40, %rd30, 512;
	// begin inline asm
	ld.global.cg.u32 %r64, [%rd40];
	// end inline asm
	add.s64 	%rd41, %rd30, 640;
	// begin inline asm
	ld.global.cg.u32 %r65, [%rd41];
	// end inline asm
	add.s64 	%rd42, %rd30, 768;
	// begin inline asm
	ld.global.cg.u32 %r66, [%rd42];
	// end inline asm
	add.s64 	%rd43, %rd30, 896;
	// begin inline asm
	ld.global.cg.u32 %r67, [%rd43];
	// end inline asm
	add.s64 	%rd44, %rd34, 512;
	// begin inline asm
	st.global.cg.u32 [%rd44], %r64;
	// end inline asm
	add.s64 	%rd45, %rd34, 640;
	// begin inline asm
	st.global.cg.u32 [%rd45], %r65;
	// end inline asm
	add.s64 	%rd46, %rd34, 768;
	// begin inline asm
	st.global.cg.u32 [%rd46], %r66;
	// end inline asm
	add.s64 	%rd47, %rd34, 896;
	// begin inline asm
	st.global.cg.u32 [%rd47], %r67;
	// end inline asm
	or.b32  	%r142, %r62, 256;
	setp.eq.s32 	%p5, %r10, 2;
	@%p5 bra 	$L__BB3_7;

	add.s64 	%rd48, %rd30, 1024;
	// begin inline asm
	ld.global.cg.u32 %r74, [%rd48];
	// end inline asm
	add.s64 	%rd49, %rd30, 1152;
	// begin inline asm
	ld.global.cg.u32 %r75, [%rd49];
	// end inline asm
	add.s64 	%rd50, %rd30, 1280;
	// begin inline asm
	ld.global.cg.u32 %r76, [%rd50];
	// end inline asm
	add.s64 	%rd51, %rd30, 1408;
	// begin inline asm
	ld.global.cg.u32 %r77, [%rd51];
	// end inline asm
	add.s64 	%rd52, %rd34, 1024;
	// begin inline asm
	st.global.cg.u32 [%rd52], %r74;
	// end inline asm
	add.s64 	%rd53, %rd34, 1152;
	// begin inline asm
	st.global.cg.u32 [%rd53], %r75;
	// end inline asm
	add.s64 	%rd54, %rd34, 1280;
	// begin inline asm
	st.global.cg.u32 [%rd54], %r76;
	// end inline asm
	add.s64 	%rd55, %rd34, 1408;
	// begin inline asm
	st.global.cg.u32 [%rd55], %r77;
	// end inline asm
	or.b32  	%r142, %r62, 384;

$L__BB3_7:
	setp.lt.u32 	%p6, %r9, 384;
	@%p6 bra 	$L__BB3_11;

	add.s32 	%r143, %r142, 96;
	mul.wide.u32 	%rd111, %r142, 4;

$L__BB3_9:
	add.s64 	%rd88, %rd6, %rd111;
	add.s64 	%rd89, %rd5, %rd111;
	// begin inline asm
	ld.global.cg.u32 %r84, [%rd88];
	// end inline asm
	add.s64 	%rd57, %rd88, 128;
	// begin inline asm
	ld.global.cg.u32 %r85, [%rd57];
	// end inline asm
	add.s64 	%rd58, %rd88, 256;
	// begin inline asm
	ld.global.cg.u32 %r86, [%rd58];
	// end inline asm
	add.s64 	%rd59, %rd88, 384;
	// begin inline asm
	ld.global.cg.u32 %r87, [%rd59];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd89], %r84;
	// end inline asm
	add.s64 	%rd61, %rd89, 128;
	// begin inline asm
	st.global.cg.u32 [%rd61], %r85;
	// end inline asm
	add.s64 	%rd62, %rd89, 256;
	// begin inline asm
	st.global.cg.u32 [%rd62], %r86;
	// end inline asm
	add.s64 	%rd63, %rd89, 384;
	// begin inline asm
	st.global.cg.u32 [%rd63], %r87;
	// end inline asm
	add.s64 	%rd64, %rd88, 512;
	// begin inline asm
	ld.global.cg.u32 %r92, [%rd64];
	// end inline asm
	add.s64 	%rd65, %rd88, 640;
	// begin inline asm
	ld.global.cg.u32 %r93, [%rd65];
	// end inline asm
	add.s64 	%rd66, %rd88, 768;
	// begin inline asm
	ld.global.cg.u32 %r94, [%rd66];
	// end inline asm
	add.s64 	%rd67, %rd88, 896;
	// begin inline asm
	ld.global.cg.u32 %r95, [%rd67];
	// end inline asm
	add.s64 	%rd68, %rd89, 512;
	// begin inline asm
	st.global.cg.u32 [%rd68], %r92;
	// end inline asm
	add.s64 	%rd69, %rd89, 640;
	// begin inline asm
	st.global.cg.u32 [%rd69], %r93;
	// end inline asm
	add.s64 	%rd70, %rd89, 768;
	// begin inline asm
	st.global.cg.u32 [%rd70], %r94;
	// end inline asm
	add.s64 	%rd71, %rd89, 896;
	// begin inline asm
	st.global.cg.u32 [%rd71], %r95;
	// end inline asm
	add.s64 	%rd72, %rd88, 1024;
	// begin inline asm
	ld.global.cg.u32 %r100, [%rd72];
	// end inline asm
	add.s64 	%rd73, %rd88, 1152;
	// begin inline asm
	ld.global.cg.u32 %r101, [%rd73];
	// end inline asm
	add.s64 	%rd74, %rd88, 1280;
	// begin inline asm
	ld.global.cg.u32 %r102, [%rd74];
	// end inline asm
	add.s64 	%rd75, %rd88, 1408;
	// begin inline asm
	ld.global.cg.u32 %r103, [%rd75];
	// end inline asm
	add.s64 	%rd76, %rd89, 1024;
	// begin inline asm
	st.global.cg.u32 [%rd76], %r100;
	// end inline asm
	add.s64 	%rd77, %rd89, 1152;
	// begin inline asm
	st.global.cg.u32 [%rd77], %r101;
	// end inline asm
	add.s64 	%rd78, %rd89, 1280;
	// begin inline asm
	st.global.cg.u32 [%rd78], %r102;
	// end inline asm
	add.s64 	%rd79, %rd89, 1408;
	// begin inline asm
	st.global.cg.u32 [%rd79], %r103;
	// end inline asm
	add.s64 	%rd80, %rd88, 1536;
	// begin inline asm
	ld.global.cg.u32 %r108, [%rd80];
	// end inline asm
	add.s64 	%rd81, %rd88, 1664;
	// begin inline asm
	ld.global.cg.u32 %r109, [%rd81];
	// end inline asm
	add.s64 	%rd82, %rd88, 1792;
	// begin inline asm
	ld.global.cg.u32 %r110, [%rd82];
	// end inline asm
	add.s64 	%rd83, %rd88, 1920;
	// begin inline asm
	ld.global.cg.u32 %r111, [%rd83];
	// end inline asm
	add.s64 	%rd84, %rd89, 1536;
	// begin inline asm
	st.global.cg.u32 [%rd84], %r108;
	// end inline asm
	add.s64 	%rd85, %rd89, 1664;
	// begin inline asm
	st.global.cg.u32 [%rd85], %r109;
	// end inline asm
	add.s64 	%rd86, %rd89, 1792;
	// begin inline asm
	st.global.cg.u32 [%rd86], %r110;
	// end inline asm
	add.s64 	%rd87, %rd89, 1920;
	// begin inline asm
	st.global.cg.u32 [%rd87], %r111;
	// end inline asm
	add.s64 	%rd111, %rd111, 2048;
	add.s32 	%r143, %r143, 512;
	setp.lt.u32 	%p7, %r143, %r6;
	@%p7 bra 	$L__BB3_9;

	add.s32 	%r142, %r143, -96;

$L__BB3_11:
	setp.ge.u32 	%p8, %r142, %r6;
	@%p8 bra 	$L__BB3_18;

	not.b32 	%r116, %r142;
	add.s32 	%r21, %r6, %r116;
	shr.u32 	%r117, %r21, 5;
	add.s32 	%r118, %r117, 1;
	and.b32  	%r22, %r118, 3;
	setp.eq.s32 	%p9, %r22, 0;
	mov.u32 	%r145, %r142;
	@%p9 bra 	$L__BB3_16;

	mul.wide.u32 	%rd92, %r142, 4;
	add.s64 	%rd91, %rd5, %rd92;
	add.s64 	%rd90, %rd6, %rd92;
	// begin inline asm
	ld.global.cg.u32 %r119, [%rd90];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd91], %r119;
	// end inline asm
	add.s32 	%r145, %r142, 32;
	setp.eq.s32 	%p10, %r22, 1;
	@%p10 bra 	$L__BB3_16;

	mul.wide.u32 	%rd95, %r145, 4;
	add.s64 	%rd94, %rd5, %rd95;
	add.s64 	%rd93, %rd6, %rd95;
	// begin inline asm
	ld.global.cg.u32 %r121, [%rd93];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd94], %r121;
	// end inline asm
	add.s32 	%r145, %r142, 64;
	setp.eq.s32 	%p11, %r22, 2;
	@%p11 bra 	$L__BB3_16;

	mul.wide.u32 	%rd98, %r145, 4;
	add.s64 	%rd97, %rd5, %rd98;
	add.s64 	%rd96, %rd6, %rd98;
	// begin inline asm
	ld.global.cg.u32 %r123, [%rd96];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd97], %r123;
	// end inline asm
	add.s32 	%r145, %r142, 96;

$L__BB3_16:
	setp.lt.u32 	%p12, %r21, 96;
	@%p12 bra 	$L__BB3_18;

$L__BB3_17:
	mul.wide.u32 	%rd107, %r145, 4;
	add.s64 	%rd100, %rd5, %rd107;
	add.s64 	%rd99, %rd6, %rd107;
	// begin inline asm
	ld.global.cg.u32 %r125, [%rd99];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd100], %r125;
	// end inline asm
	add.s32 	%r133, %r145, 32;
	mul.wide.u32 	%rd108, %r133, 4;
	add.s64 	%rd102, %rd5, %rd108;
	add.s64 	%rd101, %rd6, %rd108;
	// begin inline asm
	ld.global.cg.u32 %r127, [%rd101];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd102], %r127;
	// end inline asm
	add.s32 	%r134, %r145, 64;
	mul.wide.u32 	%rd109, %r134, 4;
	add.s64 	%rd104, %rd5, %rd109;
	add.s64 	%rd103, %rd6, %rd109;
	// begin inline asm
	ld.global.cg.u32 %r129, [%rd103];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd104], %r129;
	// end inline asm
	add.s32 	%r135, %r145, 96;
	mul.wide.u32 	%rd110, %r135, 4;
	add.s64 	%rd106, %rd5, %rd110;
	add.s64 	%rd105, %rd6, %rd110;
	// begin inline asm
	ld.global.cg.u32 %r131, [%rd105];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd106], %r131;
	// end inline asm
	add.s32 	%r145, %r145, 128;
	setp.lt.u32 	%p13, %r145, %r6;
	@%p13 bra 	$L__BB3_17;

$L__BB3_18:
	mov.u32 	%r138, %nctaid.x;
	mad.lo.s32 	%r140, %r31, %r138, %r140;
	setp.lt.u32 	%p14, %r140, %r34;
	@%p14 bra 	$L__BB3_2;

$L__BB3_19:
	ret;

}
	// .globl	gather_1
.visible .entry gather_1(
	.param .align 8 .b8 gather_1_param_0[3872]
)
.maxntid 1024, 1, 1
{
	.reg .pred 	%p<7>;
	.reg .b32 	%r<47>;
	.reg .b64 	%rd<35>;

	mov.b64 	%rd7, gather_1_param_0;
	mov.u32 	%r17, %tid.x;
	and.b32  	%r1, %r17, 31;
	mov.u32 	%r18, %ntid.x;
	shr.u32 	%r2, %r18, 5;
	add.s64 	%rd1, %rd7, 24;
	ld.param.v2.u32 	{%r19, %r20}, [gather_1_param_0+24];
	mul.lo.s32 	%r3, %r19, %r20;
	mov.u32 	%r23, %ctaid.x;
	shr.u32 	%r24, %r17, 5;
	mad.lo.s32 	%r43, %r2, %r23, %r24;
	setp.ge.u32 	%p1, %r43, %r3;
	@%p1 bra 	$L__BB4_9;

	ld.param.u32 	%r5, [%rd1];
	ld.param.u64 	%rd9, [%rd1+-24];
	cvta.to.global.u64 	%rd2, %rd9;
	ld.param.u64 	%rd3, [%rd1+-16];
	ld.param.u64 	%rd4, [%rd1+-8];
	or.b32  	%r6, %r1, 96;
	mov.u32 	%r25, %nctaid.x;
	mul.lo.s32 	%r7, %r2, %r25;

$L__BB4_2:
	div.u32 	%r26, %r43, %r5;
	mul.lo.s32 	%r27, %r26, %r5;
	sub.s32 	%r28, %r43, %r27;
	mul.wide.u32 	%rd10, %r28, 24;
	add.s64 	%rd11, %rd2, %rd10;
	ld.global.v2.u32 	{%r29, %r30}, [%rd11+16];
	cvt.u64.u32 	%rd12, %r26;
	mul.wide.u32 	%rd14, %r26, 4;
	add.s64 	%rd15, %rd7, %rd14;
	ld.param.u32 	%rd16, [%rd15+32];
	ld.global.u64 	%rd17, [%rd11+8];
	mul.lo.s64 	%rd18, %rd17, %rd16;
	ld.global.u64 	%rd19, [%rd11];
	add.s64 	%rd5, %rd18, %rd19;
	mul.lo.s64 	%rd20, %rd4, %rd12;
	cvt.u64.u32 	%rd21, %r29;
	add.s64 	%rd22, %rd3, %rd21;
	add.s64 	%rd6, %rd22, %rd20;
	setp.ge.u32 	%p2, %r6, %r30;
	mov.u32 	%r46, %r1;
	@%p2 bra 	$L__BB4_6;

	mov.u32 	%r44, %r6;

$L__BB4_4:
	add.s32 	%r40, %r44, -96;
	cvt.u64.u32 	%rd31, %r40;
	add.s64 	%rd23, %rd5, %rd31;
	// begin inline asm
	ld.global.cg.u8 %r32, [%rd23];
	// end inline asm
	add.s64 	%rd24, %rd23, 32;
	// begin inline asm
	ld.global.cg.u8 %r33, [%rd24];
	// end inline asm
	add.s64 	%rd25, %rd23, 64;
	// begin inline asm
	ld.global.cg.u8 %r34, [%rd25];
	// end inline asm
	add.s64 	%rd26, %rd23, 96;
	// begin inline asm
	ld.global.cg.u8 %r35, [%rd26];
	// end inline asm
	add.s64 	%rd27, %rd6, %rd31;
	and.b32  	%r36, %r32, 255;
	// begin inline asm
	st.global.cg.u8 [%rd27], %r36;
	// end inline asm
	add.s64 	%rd28, %rd27, 32;
	and.b32  	%r37, %r33, 255;
	// begin inline asm
	st.global.cg.u8 [%rd28], %r37;
	// end inline asm
	add.s64 	%rd29, %rd27, 64;
	and.b32  	%r38, %r34, 255;
	// begin inline asm
	st.global.cg.u8 [%rd29], %r38;
	// end inline asm
	add.s64 	%rd30, %rd27, 96;
	and.b32  	%r39, %r35, 255;
	// begin inline asm
	st.global.cg.u8 [%rd30], %r39;
	// end inline asm
	add.s32 	%r44, %r44, 128;
	setp.lt.u32 	%p3, %r44, %r30;
	@%p3 bra 	$L__BB4_4;

	add.s32 	%r46, %r44, -96;

$L__BB4_6:
	setp.ge.u32 	%p4, %r46, %r30;
	@%p4 bra 	$L__BB4_8;

$L__BB4_7:
	cvt.u64.u32 	%rd34, %r46;
	add.s64 	%rd33, %rd6, %rd34;
	add.s64 	%rd32, %rd5, %rd34;
	// begin inline asm
	ld.global.cg.u8 %r41, [%rd32];
	// end inline asm
	and.b32  	%r42, %r41, 255;
	// begin inline asm
	st.global.cg.u8 [%rd33], %r42;
	// end inline asm
	add.s32 	%r46, %r46, 32;
	setp.lt.u32 	%p5, %r46, %r30;
	@%p5 bra 	$L__BB4_7;

$L__BB4_8:
	add.s32 	%r43, %r43, %r7;
	setp.lt.u32 	%p6, %r43, %r3;
	@%p6 bra 	$L__BB4_2;

$L__BB4_9:
	ret;

}
	// .globl	scatter_1
.visible .entry scatter_1(
	.param .align 8 .b8 scatter_1_param_0[3872]
)
.maxntid 1024, 1, 1
{
	.reg .pred 	%p<7>;
	.reg .b32 	%r<47>;
	.reg .b64 	%rd<35>;

	mov.b64 	%rd7, scatter_1_param_0;
	mov.u32 	%r17, %tid.x;
	and.b32  	%r1, %r17, 31;
	mov.u32 	%r18, %ntid.x;
	shr.u32 	%r2, %r18, 5;
	add.s64 	%rd1, %rd7, 24;
	ld.param.v2.u32 	{%r19, %r20}, [scatter_1_param_0+24];
	mul.lo.s32 	%r3, %r19, %r20;
	mov.u32 	%r23, %ctaid.x;
	shr.u32 	%r24, %r17, 5;
	mad.lo.s32 	%r43, %r2, %r23, %r24;
	setp.ge.u32 	%p1, %r43, %r3;
	@%p1 bra 	$L__BB5_9;

	ld.param.u32 	%r5, [%rd1];
	ld.param.u64 	%rd9, [%rd1+-24];
	cvta.to.global.u64 	%rd2, %rd9;
	ld.param.u64 	%rd3, [%rd1+-16];
	ld.param.u64 	%rd4, [%rd1+-8];
	or.b32  	%r6, %r1, 96;
	mov.u32 	%r25, %nctaid.x;
	mul.lo.s32 	%r7, %r2, %r25;

$L__BB5_2:
	div.u32 	%r26, %r43, %r5;
	mul.lo.s32 	%r27, %r26, %r5;
	sub.s32 	%r28, %r43, %r27;
	mul.wide.u32 	%rd10, %r28, 24;
	add.s64 	%rd11, %rd2, %rd10;
	ld.global.v2.u32 	{%r29, %r30}, [%rd11+16];
	cvt.u64.u32 	%rd12, %r26;
	mul.wide.u32 	%rd14, %r26, 4;
	add.s64 	%rd15, %rd7, %rd14;
	ld.param.u32 	%rd16, [%rd15+32];
	ld.global.u64 	%rd17, [%rd11+8];
	mul.lo.s64 	%rd18, %rd17, %rd16;
	ld.global.u64 	%rd19, [%rd11];
	add.s64 	%rd5, %rd18, %rd19;
	mul.lo.s64 	%rd20, %rd4, %rd12;
	cvt.u64.u32 	%rd21, %r29;
	add.s64 	%rd22, %rd3, %rd21;
	add.s64 	%rd6, %rd22, %rd20;
	setp.ge.u32 	%p2, %r6, %r30;
	mov.u32 	%r46, %r1;
	@%p2 bra 	$L__BB5_6;

	mov.u32 	%r44, %r6;

$L__BB5_4:
	add.s32 	%r40, %r44, -96;
	cvt.u64.u32 	%rd31, %r40;
	add.s64 	%rd23, %rd6, %rd31;
	// begin inline asm
	ld.global.cg.u8 %r32, [%rd23];
	// end inline asm
	add.s64 	%rd24, %rd23, 32;
	// begin inline asm
	ld.global.cg.u8 %r33, [%rd24];
	// end inline asm
	add.s64 	%rd25, %rd23, 64;
	// begin inline asm
	ld.global.cg.u8 %r34, [%rd25];
	// end inline asm
	add.s64 	%rd26, %rd23, 96;
	// begin inline asm
	ld.global.cg.u8 %r35, [%rd26];
	// end inline asm
	add.s64 	%rd27, %rd5, %rd31;
	and.b32  	%r36, %r32, 255;
	// begin inline asm
	st.global.cg.u8 [%rd27], %r36;
	// end inline asm
	add.s64 	%rd28, %rd27, 32;
	and.b32  	%r37, %r33, 255;
	// begin inline asm
	st.global.cg.u8 [%rd28], %r37;
	// end inline asm
	add.s64 	%rd29, %rd27, 64;
	and.b32  	%r38, %r34, 255;
	// begin inline asm
	st.global.cg.u8 [%rd29], %r38;
	// end inline asm
	add.s64 	%rd30, %rd27, 96;
	and.b32  	%r39, %r35, 255;
	// begin inline asm
	st.global.cg.u8 [%rd30], %r39;
	// end inline asm
	add.s32 	%r44, %r44, 128;
	setp.lt.u32 	%p3, %r44, %r30;
	@%p3 bra 	$L__BB5_4;

	add.s32 	%r46, %r44, -96;

$L__BB5_6:
	setp.ge.u32 	%p4, %r46, %r30;
	@%p4 bra 	$L__BB5_8;

$L__BB5_7:
	cvt.u64.u32 	%rd34, %r46;
	add.s64 	%rd33, %rd5, %rd34;
	add.s64 	%rd32, %rd6, %rd34;
	// begin inline asm
	ld.global.cg.u8 %r41, [%rd32];
	// end inline asm
	and.b32  	%r42, %r41, 255;
	// begin inline asm
	st.global.cg.u8 [%rd33], %r42;
	// end inline asm
	add.s32 	%r46, %r46, 32;
	setp.lt.u32 	%p5, %r46, %r30;
	@%p5 bra 	$L__BB5_7;

$L__BB5_8:
	add.s32 	%r43, %r43, %r7;
	setp.lt.u32 	%p6, %r43, %r3;
	@%p6 bra 	$L__BB5_2;

$L__BB5_9:
	ret;

}

)ptx";

}  // namespace flexkv::cuda
