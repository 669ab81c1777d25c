// Made by scripts/cuda_kernels.sh out of csrc/cuda/gather.cu and slim.cu; not to be edited.
#pragma once

namespace flexkv::cuda {

inline constexpr char kernels_ptx[] = R"ptx(

.version 8.0
.target sm_75
.address_size 64

	// .globl	gather_16

.visible .entry gather_16(
	.param .align 8 .b8 gather_16_param_0[3880]
)
.maxntid 1024, 1, 1
{
	.reg .pred 	%p<16>;
	.reg .b32 	%r<359>;
	.reg .b64 	%rd<118>;

	mov.b64 	%rd17, gather_16_param_0;
	mov.u32 	%r32, %ntid.x;
	shr.u32 	%r33, %r32, 5;
	add.s64 	%rd1, %rd17, 24;
	ld.param.v2.u32 	{%r34, %r35}, [gather_16_param_0+24];
	mul.lo.s32 	%r36, %r34, %r35;
	mov.u32 	%r37, %ctaid.x;
	mov.u32 	%r38, %tid.x;
	shr.u32 	%r39, %r38, 5;
	mad.lo.s32 	%r352, %r33, %r37, %r39;
	setp.ge.u32 	%p1, %r352, %r36;
	@%p1 bra 	$L__BB0_21;

	ld.param.u64 	%rd2, [%rd1+-24];
	ld.param.u32 	%r4, [%rd1+8];
	ld.param.u64 	%rd3, [%rd1+-16];
	ld.param.u64 	%rd4, [%rd1+-8];
	cvta.to.global.u64 	%rd19, %rd2;

$L__BB0_2:
	div.u32 	%r40, %r352, %r34;
	mul.lo.s32 	%r41, %r40, %r34;
	sub.s32 	%r42, %r352, %r41;
	mul.wide.u32 	%rd20, %r42, 24;
	add.s64 	%rd21, %rd19, %rd20;
	ld.global.v2.u32 	{%r43, %r44}, [%rd21+16];
	cvt.u64.u32 	%rd116, %r40;
	mul.wide.u32 	%rd23, %r40, 4;
	add.s64 	%rd24, %rd17, %rd23;
	ld.param.u32 	%rd25, [%rd24+36];
	ld.global.u64 	%rd26, [%rd21+8];
	mul.lo.s64 	%rd27, %rd26, %rd25;
	ld.global.u64 	%rd28, [%rd21];
	add.s64 	%rd6, %rd27, %rd28;
	setp.eq.s32 	%p2, %r4, 0;
	@%p2 bra 	$L__BB0_4;

	cvt.u32.u64 	%r45, %rd116;
	add.s32 	%r46, %r45, 480;
	mul.wide.u32 	%rd30, %r46, 4;
	add.s64 	%rd31, %rd17, %rd30;
	ld.param.u32 	%rd116, [%rd31+36];

$L__BB0_4:
	cvt.u64.u32 	%rd32, %r43;
	add.s64 	%rd33, %rd3, %rd32;
	mul.lo.s64 	%rd34, %rd4, %rd116;
	add.s64 	%rd9, %rd33, %rd34;
	and.b32  	%r354, %r38, 31;
	or.b32  	%r48, %r354, 96;
	shr.u32 	%r9, %r44, 4;
	setp.ge.u32 	%p3, %r48, %r9;
	@%p3 bra 	$L__BB0_13;

	and.b32  	%r354, %r38, 31;
	mov.u32 	%r51, -97;
	sub.s32 	%r52, %r51, %r354;
	add.s32 	%r11, %r52, %r9;
	shr.u32 	%r53, %r11, 7;
	add.s32 	%r54, %r53, 1;
	and.b32  	%r12, %r54, 3;
	setp.eq.s32 	%p4, %r12, 0;
	@%p4 bra 	$L__BB0_9;

	and.b32  	%r88, %r38, 31;
	shl.b32 	%r89, %r38, 4;
	cvt.u64.u32 	%rd43, %r89;
	and.b64  	%rd44, %rd43, 496;
	add.s64 	%rd35, %rd6, %rd44;
	// begin inline asm
	ld.global.cg.v4.u32 {%r55,%r56,%r57,%r58}, [%rd35];
	// end inline asm
	add.s64 	%rd36, %rd35, 512;
	// begin inline asm
	ld.global.cg.v4.u32 {%r59,%r60,%r61,%r62}, [%rd36];
	// end inline asm
	add.s64 	%rd37, %rd35, 1024;
	// begin inline asm
	ld.global.cg.v4.u32 {%r63,%r64,%r65,%r66}, [%rd37];
	// end inline asm
	add.s64 	%rd38, %rd35, 1536;
	// begin inline asm
	ld.global.cg.v4.u32 {%r67,%r68,%r69,%r70}, [%rd38];
	// end inline asm
	add.s64 	%rd39, %rd9, %rd44;
	// begin inline asm
	st.global.cg.v4.u32 [%rd39], {%r55,%r56,%r57,%r58};
	// end inline asm
	add.s64 	%rd40, %rd39, 512;
	// begin inline asm
	st.global.cg.v4.u32 [%rd40], {%r59,%r60,%r61,%r62};
	// end inline asm
	add.s64 	%rd41, %rd39, 1024;
	// begin inline asm
	st.global.cg.v4.u32 [%rd41], {%r63,%r64,%r65,%r66};
	// end inline asm
	add.s64 	%rd42, %rd39, 1536;
	// begin inline asm
	st.global.cg.v4.u32 [%rd42], {%r67,%r68,%r69,%r70};
	// end inline asm
	or.b32  	%r354, %r88, 128;
	setp.eq.s32 	%p5, %r12, 1;
	@%p5 bra 	$L__BB0_9;

	add.s64 	%rd45, %rd35, 2048;
	// begin inline asm
	ld.global.cg.v4.u32 {%r90,%r91,%r92,%r93}, [%rd45];
	// end inline asm
	add.s64 	%rd46, %rd35, 2560;
	// begin inline asm
	ld.global.cg.v4.u32 {%r94,%r95,%r96,%r97}, [%rd46];
	// end inline asm
	add.s64 	%rd47, %rd35, 3072;
	// begin inline asm
	ld.global.cg.v4.u32 {%r98,%r99,%r100,%r101}, [%rd47];
	// end inline asm
	add.s64 	%rd48, %rd35, 3584;
	// begin inline asm
	ld.global.cg.v4.u32 {%r102,%r103,%r104,%r105}, [%rd48];
	// end inline asm
	add.s64 	%rd49, %rd39, 2048;
	// begin inline asm
	st.global.cg.v4.u32 [%rd49], {%r90,%r91,%r92,%r93};
	// end inline asm
	add.s64 	%rd50, %rd39, 2560;
	// begin inline asm
	st.global.cg.v4.u32 [%rd50], {%r94,%r95,%r96,%r97};
	// end inline asm
	add.s64 	%rd51, %rd39, 3072;
	// begin inline asm
	st.global.cg.v4.u32 [%rd51], {%r98,%r99,%r100,%r101};
	// end inline asm
	add.s64 	%rd52, %rd39, 3584;
	// begin inline asm
	st.global.cg.v4.u32 [%rd52], {%r102,%r103,%r104,%r105};
	// end inline asm
	or.b32  	%r354, %r88, 256;
	setp.eq.s32 	%p6, %r12, 2;
	@%p6 bra 	$L__BB0_9;

	add.s64 	%rd53, %rd35, 4096;
	// begin inline asm
	ld.global.cg.v4.u32 {%r124,%r125,%r126,%r127}, [%rd53];
	// end inline asm
	add.s64 	%rd54, %rd35, 4608;
	// begin inline asm
	ld.global.cg.v4.u32 {%r128,%r129,%r130,%r131}, [%rd54];
	// end inline asm
	add.s64 	%rd55, %rd35, 5120;
	// begin inline asm
	ld.global.cg.v4.u32 {%r132,%r133,%r134,%r135}, [%rd55];
	// end inline asm
	add.s64 	%rd56, %rd35, 5632;
	// begin inline asm
	ld.global.cg.v4.u32 {%r136,%r137,%r138,%r139}, [%rd56];
	// end inline asm
	add.s64 	%rd57, %rd39, 4096;
	// begin inline asm
	st.global.cg.v4.u32 [%rd57], {%r124,%r125,%r126,%r127};
	// end inline asm
	add.s64 	%rd58, %rd39, 4608;
	// begin inline asm
	st.global.cg.v4.u32 [%rd58], {%r128,%r129,%r130,%r131};
	// end inline asm
	add.s64 	%rd59, %rd39, 5120;
	// begin inline asm
	st.global.cg.v4.u32 [%rd59], {%r132,%r133,%r134,%r135};
	// end inline asm
	add.s64 	%rd60, %rd39, 5632;
	// begin inline asm
	st.global.cg.v4.u32 [%rd60], {%r136,%r137,%r138,%r139};
	// end inline asm
	or.b32  	%r354, %r88, 384;

$L__BB0_9:
	setp.lt.u32 	%p7, %r11, 384;
	@%p7 bra 	$L__BB0_13;

	add.s32 	%r355, %r354, 96;
	mul.wide.u32 	%rd117, %r354, 16;

$L__BB0_11:
	add.s64 	%rd93, %rd6, %rd117;
	add.s64 	%rd94, %rd9, %rd117;
	// begin inline asm
	ld.global.cg.v4.u32 {%r158,%r159,%r160,%r161}, [%rd93];
	// end inline asm
	add.s64 	%rd62, %rd93, 512;
	// begin inline asm
	ld.global.cg.v4.u32 {%r162,%r163,%r164,%r165}, [%rd62];
	// end inline asm
	add.s64 	%rd63, %rd93, 1024;
	// begin inline asm
	ld.global.cg.v4.u32 {%r166,%r167,%r168,%r169}, [%rd63];
	// end inline asm
	add.s64 	%rd64, %rd93, 1536;
	// begin inline asm
	ld.global.cg.v4.u32 {%r170,%r171,%r172,%r173}, [%rd64];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd94], {%r158,%r159,%r160,%r161};
	// end inline asm
	add.s64 	%rd66, %rd94, 512;
	// begin inline asm
	st.global.cg.v4.u32 [%rd66], {%r162,%r163,%r164,%r165};
	// end inline asm
	add.s64 	%rd67, %rd94, 1024;
	// begin inline asm
	st.global.cg.v4.u32 [%rd67], {%r166,%r167,%r168,%r169};
	// end inline asm
	add.s64 	%rd68, %rd94, 1536;
	// begin inline asm
	st.global.cg.v4.u32 [%rd68], {%r170,%r171,%r172,%r173};
	// end inline asm
	add.s64 	%rd69, %rd93, 2048;
	// begin inline asm
	ld.global.cg.v4.u32 {%r190,%r191,%r192,%r193}, [%rd69];
	// end inline asm
	add.s64 	%rd70, %rd93, 2560;
	// begin inline asm
	ld.global.cg.v4.u32 {%r194,%r195,%r196,%r197}, [%rd70];
	// end inline asm
	add.s64 	%rd71, %rd93, 3072;
	// begin inline asm
	ld.global.cg.v4.u32 {%r198,%r199,%r200,%r201}, [%rd71];
	// end inline asm
	add.s64 	%rd72, %rd93, 3584;
	// begin inline asm
	ld.global.cg.v4.u32 {%r202,%r203,%r204,%r205}, [%rd72];
	// end inline asm
	add.s64 	%rd73, %rd94, 2048;
	// begin inline asm
	st.global.cg.v4.u32 [%rd73], {%r190,%r191,%r192,%r193};
	// end inline asm
	add.s64 	%rd74, %rd94, 2560;
	// begin inline asm
	st.global.cg.v4.u32 [%rd74], {%r194,%r195,%r196,%r197};
	// end inline asm
	add.s64 	%rd75, %rd94, 3072;
	// begin inline asm
	st.global.cg.v4.u32 [%rd75], {%r198,%r199,%r200,%r201};
	// end inline asm
	add.s64 	%rd76, %rd94, 3584;
	// begin inline asm
	st.global.cg.v4.u32 [%rd76], {%r202,%r203,%r204,%r205};
	// end inline asm
	add.s64 	%rd77, %rd93, 4096;
	// begin inline asm
	ld.global.cg.v4.u32 {%r222,%r223,%r224,%r225}, [%rd77];
	// end inline asm
	add.s64 	%rd78, %rd93, 4608;
	// begin inline asm
	ld.global.cg.v4.u32 {%r226,%r227,%r228,%r229}, [%rd78];
	// end inline asm
	add.s64 	%rd79, %rd93, 5120;
	// begin inline asm
	ld.global.cg.v4.u32 {%r230,%r231,%r232,%r233}, [%rd79];
	// end inline asm
	add.s64 	%rd80, %rd93, 5632;
	// begin inline asm
	ld.global.cg.v4.u32 {%r234,%r235,%r236,%r237}, [%rd80];
	// end inline asm
	add.s64 	%rd81, %rd94, 4096;
	// begin inline asm
	st.global.cg.v4.u32 [%rd81], {%r222,%r223,%r224,%r225};
	// end inline asm
	add.s64 	%rd82, %rd94, 4608;
	// begin inline asm
	st.global.cg.v4.u32 [%rd82], {%r226,%r227,%r228,%r229};
	// end inline asm
	add.s64 	%rd83, %rd94, 5120;
	// begin inline asm
	st.global.cg.v4.u32 [%rd83], {%r230,%r231,%r232,%r233};
	// end inline asm
	add.s64 	%rd84, %rd94, 5632;
	// begin inline asm
	st.global.cg.v4.u32 [%rd84], {%r234,%r235,%r236,%r237};
	// end inline asm
	add.s64 	%rd85, %rd93, 6144;
	// begin inline asm
	ld.global.cg.v4.u32 {%r254,%r255,%r256,%r257}, [%rd85];
	// end inline asm
	add.s64 	%rd86, %rd93, 6656;
	// begin inline asm
	ld.global.cg.v4.u32 {%r258,%r259,%r260,%r261}, [%rd86];
	// end inline asm
	add.s64 	%rd87, %rd93, 7168;
	// begin inline asm
	ld.global.cg.v4.u32 {%r262,%r263,%r264,%r265}, [%rd87];
	// end inline asm
	add.s64 	%rd88, %rd93, 7680;
	// begin inline asm
	ld.global.cg.v4.u32 {%r266,%r267,%r268,%r269}, [%rd88];
	// end inline asm
	add.s64 	%rd89, %rd94, 6144;
	// begin inline asm
	st.global.cg.v4.u32 [%rd89], {%r254,%r255,%r256,%r257};
	// end inline asm
	add.s64 	%rd90, %rd94, 6656;
	// begin inline asm
	st.global.cg.v4.u32 [%rd90], {%r258,%r259,%r260,%r261};
	// end inline asm
	add.s64 	%rd91, %rd94, 7168;
	// begin inline asm
	st.global.cg.v4.u32 [%rd91], {%r262,%r263,%r264,%r265};
	// end inline asm
	add.s64 	%rd92, %rd94, 7680;
	// begin inline asm
	st.global.cg.v4.u32 [%rd92], {%r266,%r267,%r268,%r269};
	// end inline asm
	add.s64 	%rd117, %rd117, 8192;
	add.s32 	%r355, %r355, 512;
	setp.lt.u32 	%p8, %r355, %r9;
	@%p8 bra 	$L__BB0_11;

	add.s32 	%r354, %r355, -96;

$L__BB0_13:
	setp.ge.u32 	%p9, %r354, %r9;
	@%p9 bra 	$L__BB0_20;

	not.b32 	%r286, %r354;
	add.s32 	%r23, %r9, %r286;
	shr.u32 	%r287, %r23, 5;
	add.s32 	%r288, %r287, 1;
	and.b32  	%r24, %r288, 3;
	setp.eq.s32 	%p10, %r24, 0;
	mov.u32 	%r357, %r354;
	@%p10 bra 	$L__BB0_18;

	mul.wide.u32 	%rd97, %r354, 16;
	add.s64 	%rd96, %rd9, %rd97;
	add.s64 	%rd95, %rd6, %rd97;
	// begin inline asm
	ld.global.cg.v4.u32 {%r289,%r290,%r291,%r292}, [%rd95];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd96], {%r289,%r290,%r291,%r292};
	// end inline asm
	add.s32 	%r357, %r354, 32;
	setp.eq.s32 	%p11, %r24, 1;
	@%p11 bra 	$L__BB0_18;

	mul.wide.u32 	%rd100, %r357, 16;
	add.s64 	%rd99, %rd9, %rd100;
	add.s64 	%rd98, %rd6, %rd100;
	// begin inline asm
	ld.global.cg.v4.u32 {%r297,%r298,%r299,%r300}, [%rd98];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd99], {%r297,%r298,%r299,%r300};
	// end inline asm
	add.s32 	%r357, %r354, 64;
	setp.eq.s32 	%p12, %r24, 2;
	@%p12 bra 	$L__BB0_18;

	mul.wide.u32 	%rd103, %r357, 16;
	add.s64 	%rd102, %rd9, %rd103;
	add.s64 	%rd101, %rd6, %rd103;
	// begin inline asm
	ld.global.cg.v4.u32 {%r305,%r306,%r307,%r308}, [%rd101];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd102], {%r305,%r306,%r307,%r308};
	// end inline asm
	add.s32 	%r357, %r354, 96;

$L__BB0_18:
	setp.lt.u32 	%p13, %r23, 96;
	@%p13 bra 	$L__BB0_20;

$L__BB0_19:
	mul.wide.u32 	%rd112, %r357, 16;
	add.s64 	%rd105, %rd9, %rd112;
	add.s64 	%rd104, %rd6, %rd112;
	// begin inline asm
	ld.global.cg.v4.u32 {%r313,%r314,%r315,%r316}, [%rd104];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd105], {%r313,%r314,%r315,%r316};
	// end inline asm
	add.s32 	%r345, %r357, 32;
	mul.wide.u32 	%rd113, %r345, 16;
	add.s64 	%rd107, %rd9, %rd113;
	add.s64 	%rd106, %rd6, %rd113;
	// begin inline asm
	ld.global.cg.v4.u32 {%r321,%r322,%r323,%r324}, [%rd106];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd107], {%r321,%r322,%r323,%r324};
	// end inline asm
	add.s32 	%r346, %r357, 64;
	mul.wide.u32 	%rd114, %r346, 16;
	add.s64 	%rd109, %rd9, %rd114;
	add.s64 	%rd108, %rd6, %rd114;
	// begin inline asm
	ld.global.cg.v4.u32 {%r329,%r330,%r331,%r332}, [%rd108];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd109], {%r329,%r330,%r331,%r332};
	// end inline asm
	add.s32 	%r347, %r357, 96;
	mul.wide.u32 	%rd115, %r347, 16;
	add.s64 	%rd111, %rd9, %rd115;
	add.s64 	%rd110, %rd6, %rd115;
	// begin inline asm
	ld.global.cg.v4.u32 {%r337,%r338,%r339,%r340}, [%rd110];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd111], {%r337,%r338,%r339,%r340};
	// end inline asm
	add.s32 	%r357, %r357, 128;
	setp.lt.u32 	%p14, %r357, %r9;
	@%p14 bra 	$L__BB0_19;

$L__BB0_20:
	mov.u32 	%r350, %nctaid.x;
	mad.lo.s32 	%r352, %r33, %r350, %r352;
	setp.lt.u32 	%p15, %r352, %r36;
	@%p15 bra 	$L__BB0_2;

$L__BB0_21:
	ret;

}
	// .globl	scatter_16
.visible .entry scatter_16(
	.param .align 8 .b8 scatter_16_param_0[3880]
)
.maxntid 1024, 1, 1
{
	.reg .pred 	%p<16>;
	.reg .b32 	%r<359>;
	.reg .b64 	%rd<118>;

	mov.b64 	%rd17, scatter_16_param_0;
	mov.u32 	%r32, %ntid.x;
	shr.u32 	%r33, %r32, 5;
	add.s64 	%rd1, %rd17, 24;
	ld.param.v2.u32 	{%r34, %r35}, [scatter_16_param_0+24];
	mul.lo.s32 	%r36, %r34, %r35;
	mov.u32 	%r37, %ctaid.x;
	mov.u32 	%r38, %tid.x;
	shr.u32 	%r39, %r38, 5;
	mad.lo.s32 	%r352, %r33, %r37, %r39;
	setp.ge.u32 	%p1, %r352, %r36;
	@%p1 bra 	$L__BB1_21;

	ld.param.u64 	%rd2, [%rd1+-24];
	ld.param.u32 	%r4, [%rd1+8];
	ld.param.u64 	%rd3, [%rd1+-16];
	ld.param.u64 	%rd4, [%rd1+-8];
	cvta.to.global.u64 	%rd19, %rd2;

$L__BB1_2:
	div.u32 	%r40, %r352, %r34;
	mul.lo.s32 	%r41, %r40, %r34;
	sub.s32 	%r42, %r352, %r41;
	mul.wide.u32 	%rd20, %r42, 24;
	add.s64 	%rd21, %rd19, %rd20;
	ld.global.v2.u32 	{%r43, %r44}, [%rd21+16];
	cvt.u64.u32 	%rd116, %r40;
	mul.wide.u32 	%rd23, %r40, 4;
	add.s64 	%rd24, %rd17, %rd23;
	ld.param.u32 	%rd25, [%rd24+36];
	ld.global.u64 	%rd26, [%rd21+8];
	mul.lo.s64 	%rd27, %rd26, %rd25;
	ld.global.u64 	%rd28, [%rd21];
	add.s64 	%rd6, %rd27, %rd28;
	setp.eq.s32 	%p2, %r4, 0;
	@%p2 bra 	$L__BB1_4;

	cvt.u32.u64 	%r45, %rd116;
	add.s32 	%r46, %r45, 480;
	mul.wide.u32 	%rd30, %r46, 4;
	add.s64 	%rd31, %rd17, %rd30;
	ld.param.u32 	%rd116, [%rd31+36];

$L__BB1_4:
	cvt.u64.u32 	%rd32, %r43;
	add.s64 	%rd33, %rd3, %rd32;
	mul.lo.s64 	%rd34, %rd4, %rd116;
	add.s64 	%rd9, %rd33, %rd34;
	and.b32  	%r354, %r38, 31;
	or.b32  	%r48, %r354, 96;
	shr.u32 	%r9, %r44, 4;
	setp.ge.u32 	%p3, %r48, %r9;
	@%p3 bra 	$L__BB1_13;

	and.b32  	%r354, %r38, 31;
	mov.u32 	%r51, -97;
	sub.s32 	%r52, %r51, %r354;
	add.s32 	%r11, %r52, %r9;
	shr.u32 	%r53, %r11, 7;
	add.s32 	%r54, %r53, 1;
	and.b32  	%r12, %r54, 3;
	setp.eq.s32 	%p4, %r12, 0;
	@%p4 bra 	$L__BB1_9;

	and.b32  	%r88, %r38, 31;
	shl.b32 	%r89, %r38, 4;
	cvt.u64.u32 	%rd43, %r89;
	and.b64  	%rd44, %rd43, 496;
	add.s64 	%rd35, %rd9, %rd44;
	// begin inline asm
	ld.global.cg.v4.u32 {%r55,%r56,%r57,%r58}, [%rd35];
	// end inline asm
	add.s64 	%rd36, %rd35, 512;
	// begin inline asm
	ld.global.cg.v4.u32 {%r59,%r60,%r61,%r62}, [%rd36];
	// end inline asm
	add.s64 	%rd37, %rd35, 1024;
	// begin inline asm
	ld.global.cg.v4.u32 {%r63,%r64,%r65,%r66}, [%rd37];
	// end inline asm
	add.s64 	%rd38, %rd35, 1536;
	// begin inline asm
	ld.global.cg.v4.u32 {%r67,%r68,%r69,%r70}, [%rd38];
	// end inline asm
	add.s64 	%rd39, %rd6, %rd44;
	// begin inline asm
	st.global.cg.v4.u32 [%rd39], {%r55,%r56,%r57,%r58};
	// end inline asm
	add.s64 	%rd40, %rd39, 512;
	// begin inline asm
	st.global.cg.v4.u32 [%rd40], {%r59,%r60,%r61,%r62};
	// end inline asm
	add.s64 	%rd41, %rd39, 1024;
	// begin inline asm
	st.global.cg.v4.u32 [%rd41], {%r63,%r64,%r65,%r66};
	// end inline asm
	add.s64 	%rd42, %rd39, 1536;
	// begin inline asm
	st.global.cg.v4.u32 [%rd42], {%r67,%r68,%r69,%r70};
	// end inline asm
	or.b32  	%r354, %r88, 128;
	setp.eq.s32 	%p5, %r12, 1;
	@%p5 bra 	$L__BB1_9;

	add.s64 	%rd45, %rd35, 2048;
	// begin inline asm
	ld.global.cg.v4.u32 {%r90,%r91,%r92,%r93}, [%rd45];
	// end inline asm
	add.s64 	%rd46, %rd35, 2560;
	// begin inline asm
	ld.global.cg.v4.u32 {%r94,%r95,%r96,%r97}, [%rd46];
	// end inline asm
	add.s64 	%rd47, %rd35, 3072;
	// begin inline asm
	ld.global.cg.v4.u32 {%r98,%r99,%r100,%r101}, [%rd47];
	// end inline asm
	add.s64 	%rd48, %rd35, 3584;
	// begin inline asm
	ld.global.cg.v4.u32 {%r102,%r103,%r104,%r105}, [%rd48];
	// end inline asm
	add.s64 	%rd49, %rd39, 2048;
	// begin inline asm
	st.global.cg.v4.u32 [%rd49], {%r90,%r91,%r92,%r93};
	// end inline asm
	add.s64 	%rd50, %rd39, 2560;
	// begin inline asm
	st.global.cg.v4.u32 [%rd50], {%r94,%r95,%r96,%r97};
	// end inline asm
	add.s64 	%rd51, %rd39, 3072;
	// begin inline asm
	st.global.cg.v4.u32 [%rd51], {%r98,%r99,%r100,%r101};
	// end inline asm
	add.s64 	%rd52, %rd39, 3584;
	// begin inline asm
	st.global.cg.v4.u32 [%rd52], {%r102,%r103,%r104,%r105};
	// end inline asm
	or.b32  	%r354, %r88, 256;
	setp.eq.s32 	%p6, %r12, 2;
	@%p6 bra 	$L__BB1_9;

	add.s64 	%rd53, %rd35, 4096;
	// begin inline asm
	ld.global.cg.v4.u32 {%r124,%r125,%r126,%r127}, [%rd53];
	// end inline asm
	add.s64 	%rd54, %rd35, 4608;
	// begin inline asm
	ld.global.cg.v4.u32 {%r128,%r129,%r130,%r131}, [%rd54];
	// end inline asm
	add.s64 	%rd55, %rd35, 5120;
	// begin inline asm
	ld.global.cg.v4.u32 {%r132,%r133,%r134,%r135}, [%rd55];
	// end inline asm
	add.s64 	%rd56, %rd35, 5632;
	// begin inline asm
	ld.global.cg.v4.u32 {%r136,%r137,%r138,%r139}, [%rd56];
	// end inline asm
	add.s64 	%rd57, %rd39, 4096;
	// begin inline asm
	st.global.cg.v4.u32 [%rd57], {%r124,%r125,%r126,%r127};
	// end inline asm
	add.s64 	%rd58, %rd39, 4608;
	// begin inline asm
	st.global.cg.v4.u32 [%rd58], {%r128,%r129,%r130,%r131};
	// end inline asm
	add.s64 	%rd59, %rd39, 5120;
	// begin inline asm
	st.global.cg.v4.u32 [%rd59], {%r132,%r133,%r134,%r135};
	// end inline asm
	add.s64 	%rd60, %rd39, 5632;
	// begin inline asm
	st.global.cg.v4.u32 [%rd60], {%r136,%r137,%r138,%r139};
	// end inline asm
	or.b32  	%r354, %r88, 384;

$L__BB1_9:
	setp.lt.u32 	%p7, %r11, 384;
	@%p7 bra 	$L__BB1_13;

	add.s32 	%r355, %r354, 96;
	mul.wide.u32 	%rd117, %r354, 16;

$L__BB1_11:
	add.s64 	%rd93, %rd9, %rd117;
	add.s64 	%rd94, %rd6, %rd117;
	// begin inline asm
	ld.global.cg.v4.u32 {%r158,%r159,%r160,%r161}, [%rd93];
	// end inline asm
	add.s64 	%rd62, %rd93, 512;
	// begin inline asm
	ld.global.cg.v4.u32 {%r162,%r163,%r164,%r165}, [%rd62];
	// end inline asm
	add.s64 	%rd63, %rd93, 1024;
	// begin inline asm
	ld.global.cg.v4.u32 {%r166,%r167,%r168,%r169}, [%rd63];
	// end inline asm
	add.s64 	%rd64, %rd93, 1536;
	// begin inline asm
	ld.global.cg.v4.u32 {%r170,%r171,%r172,%r173}, [%rd64];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd94], {%r158,%r159,%r160,%r161};
	// end inline asm
	add.s64 	%rd66, %rd94, 512;
	// begin inline asm
	st.global.cg.v4.u32 [%rd66], {%r162,%r163,%r164,%r165};
	// end inline asm
	add.s64 	%rd67, %rd94, 1024;
	// begin inline asm
	st.global.cg.v4.u32 [%rd67], {%r166,%r167,%r168,%r169};
	// end inline asm
	add.s64 	%rd68, %rd94, 1536;
	// begin inline asm
	st.global.cg.v4.u32 [%rd68], {%r170,%r171,%r172,%r173};
	// end inline asm
	add.s64 	%rd69, %rd93, 2048;
	// begin inline asm
	ld.global.cg.v4.u32 {%r190,%r191,%r192,%r193}, [%rd69];
	// end inline asm
	add.s64 	%rd70, %rd93, 2560;
	// begin inline asm
	ld.global.cg.v4.u32 {%r194,%r195,%r196,%r197}, [%rd70];
	// end inline asm
	add.s64 	%rd71, %rd93, 3072;
	// begin inline asm
	ld.global.cg.v4.u32 {%r198,%r199,%r200,%r201}, [%rd71];
	// end inline asm
	add.s64 	%rd72, %rd93, 3584;
	// begin inline asm
	ld.global.cg.v4.u32 {%r202,%r203,%r204,%r205}, [%rd72];
	// end inline asm
	add.s64 	%rd73, %rd94, 2048;
	// begin inline asm
	st.global.cg.v4.u32 [%rd73], {%r190,%r191,%r192,%r193};
	// end inline asm
	add.s64 	%rd74, %rd94, 2560;
	// begin inline asm
	st.global.cg.v4.u32 [%rd74], {%r194,%r195,%r196,%r197};
	// end inline asm
	add.s64 	%rd75, %rd94, 3072;
	// begin inline asm
	st.global.cg.v4.u32 [%rd75], {%r198,%r199,%r200,%r201};
	// end inline asm
	add.s64 	%rd76, %rd94, 3584;
	// begin inline asm
	st.global.cg.v4.u32 [%rd76], {%r202,%r203,%r204,%r205};
	// end inline asm
	add.s64 	%rd77, %rd93, 4096;
	// begin inline asm
	ld.global.cg.v4.u32 {%r222,%r223,%r224,%r225}, [%rd77];
	// end inline asm
	add.s64 	%rd78, %rd93, 4608;
	// begin inline asm
	ld.global.cg.v4.u32 {%r226,%r227,%r228,%r229}, [%rd78];
	// end inline asm
	add.s64 	%rd79, %rd93, 5120;
	// begin inline asm
	ld.global.cg.v4.u32 {%r230,%r231,%r232,%r233}, [%rd79];
	// end inline asm
	add.s64 	%rd80, %rd93, 5632;
	// begin inline asm
	ld.global.cg.v4.u32 {%r234,%r235,%r236,%r237}, [%rd80];
	// end inline asm
	add.s64 	%rd81, %rd94, 4096;
	// begin inline asm
	st.global.cg.v4.u32 [%rd81], {%r222,%r223,%r224,%r225};
	// end inline asm
	add.s64 	%rd82, %rd94, 4608;
	// begin inline asm
	st.global.cg.v4.u32 [%rd82], {%r226,%r227,%r228,%r229};
	// end inline asm
	add.s64 	%rd83, %rd94, 5120;
	// begin inline asm
	st.global.cg.v4.u32 [%rd83], {%r230,%r231,%r232,%r233};
	// end inline asm
	add.s64 	%rd84, %rd94, 5632;
	// begin inline asm
	st.global.cg.v4.u32 [%rd84], {%r234,%r235,%r236,%r237};
	// end inline asm
	add.s64 	%rd85, %rd93, 6144;
	// begin inline asm
	ld.global.cg.v4.u32 {%r254,%r255,%r256,%r257}, [%rd85];
	// end inline asm
	add.s64 	%rd86, %rd93, 6656;
	// begin inline asm
	ld.global.cg.v4.u32 {%r258,%r259,%r260,%r261}, [%rd86];
	// end inline asm
	add.s64 	%rd87, %rd93, 7168;
	// begin inline asm
	ld.global.cg.v4.u32 {%r262,%r263,%r264,%r265}, [%rd87];
	// end inline asm
	add.s64 	%rd88, %rd93, 7680;
	// begin inline asm
	ld.global.cg.v4.u32 {%r266,%r267,%r268,%r269}, [%rd88];
	// end inline asm
	add.s64 	%rd89, %rd94, 6144;
	// begin inline asm
	st.global.cg.v4.u32 [%rd89], {%r254,%r255,%r256,%r257};
	// end inline asm
	add.s64 	%rd90, %rd94, 6656;
	// begin inline asm
	st.global.cg.v4.u32 [%rd90], {%r258,%r259,%r260,%r261};
	// end inline asm
	add.s64 	%rd91, %rd94, 7168;
	// begin inline asm
	st.global.cg.v4.u32 [%rd91], {%r262,%r263,%r264,%r265};
	// end inline asm
	add.s64 	%rd92, %rd94, 7680;
	// begin inline asm
	st.global.cg.v4.u32 [%rd92], {%r266,%r267,%r268,%r269};
	// end inline asm
	add.s64 	%rd117, %rd117, 8192;
	add.s32 	%r355, %r355, 512;
	setp.lt.u32 	%p8, %r355, %r9;
	@%p8 bra 	$L__BB1_11;

	add.s32 	%r354, %r355, -96;

$L__BB1_13:
	setp.ge.u32 	%p9, %r354, %r9;
	@%p9 bra 	$L__BB1_20;

	not.b32 	%r286, %r354;
	add.s32 	%r23, %r9, %r286;
	shr.u32 	%r287, %r23, 5;
	add.s32 	%r288, %r287, 1;
	and.b32  	%r24, %r288, 3;
	setp.eq.s32 	%p10, %r24, 0;
	mov.u32 	%r357, %r354;
	@%p10 bra 	$L__BB1_18;

	mul.wide.u32 	%rd97, %r354, 16;
	add.s64 	%rd96, %rd6, %rd97;
	add.s64 	%rd95, %rd9, %rd97;
	// begin inline asm
	ld.global.cg.v4.u32 {%r289,%r290,%r291,%r292}, [%rd95];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd96], {%r289,%r290,%r291,%r292};
	// end inline asm
	add.s32 	%r357, %r354, 32;
	setp.eq.s32 	%p11, %r24, 1;
	@%p11 bra 	$L__BB1_18;

	mul.wide.u32 	%rd100, %r357, 16;
	add.s64 	%rd99, %rd6, %rd100;
	add.s64 	%rd98, %rd9, %rd100;
	// begin inline asm
	ld.global.cg.v4.u32 {%r297,%r298,%r299,%r300}, [%rd98];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd99], {%r297,%r298,%r299,%r300};
	// end inline asm
	add.s32 	%r357, %r354, 64;
	setp.eq.s32 	%p12, %r24, 2;
	@%p12 bra 	$L__BB1_18;

	mul.wide.u32 	%rd103, %r357, 16;
	add.s64 	%rd102, %rd6, %rd103;
	add.s64 	%rd101, %rd9, %rd103;
	// begin inline asm
	ld.global.cg.v4.u32 {%r305,%r306,%r307,%r308}, [%rd101];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd102], {%r305,%r306,%r307,%r308};
	// end inline asm
	add.s32 	%r357, %r354, 96;

$L__BB1_18:
	setp.lt.u32 	%p13, %r23, 96;
	@%p13 bra 	$L__BB1_20;

$L__BB1_19:
	mul.wide.u32 	%rd112, %r357, 16;
	add.s64 	%rd105, %rd6, %rd112;
	add.s64 	%rd104, %rd9, %rd112;
	// begin inline asm
	ld.global.cg.v4.u32 {%r313,%r314,%r315,%r316}, [%rd104];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd105], {%r313,%r314,%r315,%r316};
	// end inline asm
	add.s32 	%r345, %r357, 32;
	mul.wide.u32 	%rd113, %r345, 16;
	add.s64 	%rd107, %rd6, %rd113;
	add.s64 	%rd106, %rd9, %rd113;
	// begin inline asm
	ld.global.cg.v4.u32 {%r321,%r322,%r323,%r324}, [%rd106];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd107], {%r321,%r322,%r323,%r324};
	// end inline asm
	add.s32 	%r346, %r357, 64;
	mul.wide.u32 	%rd114, %r346, 16;
	add.s64 	%rd109, %rd6, %rd114;
	add.s64 	%rd108, %rd9, %rd114;
	// begin inline asm
	ld.global.cg.v4.u32 {%r329,%r330,%r331,%r332}, [%rd108];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd109], {%r329,%r330,%r331,%r332};
	// end inline asm
	add.s32 	%r347, %r357, 96;
	mul.wide.u32 	%rd115, %r347, 16;
	add.s64 	%rd111, %rd6, %rd115;
	add.s64 	%rd110, %rd9, %rd115;
	// begin inline asm
	ld.global.cg.v4.u32 {%r337,%r338,%r339,%r340}, [%rd110];
	// end inline asm
	// begin inline asm
	st.global.cg.v4.u32 [%rd111], {%r337,%r338,%r339,%r340};
	// end inline asm
	add.s32 	%r357, %r357, 128;
	setp.lt.u32 	%p14, %r357, %r9;
	@%p14 bra 	$L__BB1_19;

$L__BB1_20:
	mov.u32 	%r350, %nctaid.x;
	mad.lo.s32 	%r352, %r33, %r350, %r352;
	setp.lt.u32 	%p15, %r352, %r36;
	@%p15 bra 	$L__BB1_2;

$L__BB1_21:
	ret;

}
	// .globl	gather_4
.visible .entry gather_4(
	.param .align 8 .b8 gather_4_param_0[3880]
)
.maxntid 1024, 1, 1
{
	.reg .pred 	%p<16>;
	.reg .b32 	%r<149>;
	.reg .b64 	%rd<118>;

	mov.b64 	%rd17, gather_4_param_0;
	mov.u32 	%r32, %ntid.x;
	shr.u32 	%r33, %r32, 5;
	add.s64 	%rd1, %rd17, 24;
	ld.param.v2.u32 	{%r34, %r35}, [gather_4_param_0+24];
	mul.lo.s32 	%r36, %r34, %r35;
	mov.u32 	%r37, %ctaid.x;
	mov.u32 	%r38, %tid.x;
	shr.u32 	%r39, %r38, 5;
	mad.lo.s32 	%r142, %r33, %r37, %r39;
	setp.ge.u32 	%p1, %r142, %r36;
	@%p1 bra 	$L__BB2_21;

	ld.param.u64 	%rd2, [%rd1+-24];
	ld.param.u32 	%r4, [%rd1+8];
	ld.param.u64 	%rd3, [%rd1+-16];
	ld.param.u64 	%rd4, [%rd1+-8];
	cvta.to.global.u64 	%rd19, %rd2;

$L__BB2_2:
	div.u32 	%r40, %r142, %r34;
	mul.lo.s32 	%r41, %r40, %r34;
	sub.s32 	%r42, %r142, %r41;
	mul.wide.u32 	%rd20, %r42, 24;
	add.s64 	%rd21, %rd19, %rd20;
	ld.global.v2.u32 	{%r43, %r44}, [%rd21+16];
	cvt.u64.u32 	%rd116, %r40;
	mul.wide.u32 	%rd23, %r40, 4;
	add.s64 	%rd24, %rd17, %rd23;
	ld.param.u32 	%rd25, [%rd24+36];
	ld.global.u64 	%rd26, [%rd21+8];
	mul.lo.s64 	%rd27, %rd26, %rd25;
	ld.global.u64 	%rd28, [%rd21];
	add.s64 	%rd6, %rd27, %rd28;
	setp.eq.s32 	%p2, %r4, 0;
	@%p2 bra 	$L__BB2_4;

	cvt.u32.u64 	%r45, %rd116;
	add.s32 	%r46, %r45, 480;
	mul.wide.u32 	%rd30, %r46, 4;
	add.s64 	%rd31, %rd17, %rd30;
	ld.param.u32 	%rd116, [%rd31+36];

$L__BB2_4:
	cvt.u64.u32 	%rd32, %r43;
	add.s64 	%rd33, %rd3, %rd32;
	mul.lo.s64 	%rd34, %rd4, %rd116;
	add.s64 	%rd9, %rd33, %rd34;
	and.b32  	%r144, %r38, 31;
	or.b32  	%r48, %r144, 96;
	shr.u32 	%r9, %r44, 2;
	setp.ge.u32 	%p3, %r48, %r9;
	@%p3 bra 	$L__BB2_13;

	and.b32  	%r144, %r38, 31;
	mov.u32 	%r51, -97;
	sub.s32 	%r52, %r51, %r144;
	add.s32 	%r11, %r52, %r9;
	shr.u32 	%r53, %r11, 7;
	add.s32 	%r54, %r53, 1;
	and.b32  	%r12, %r54, 3;
	setp.eq.s32 	%p4, %r12, 0;
	@%p4 bra 	$L__BB2_9;

	and.b32  	%r64, %r38, 31;
	shl.b32 	%r65, %r38, 2;
	cvt.u64.u32 	%rd43, %r65;
	and.b64  	%rd44, %rd43, 124;
	add.s64 	%rd35, %rd6, %rd44;
	// begin inline asm
	ld.global.cg.u32 %r55, [%rd35];
	// end inline asm
	add.s64 	%rd36, %rd35, 128;
	// begin inline asm
	ld.global.cg.u32 %r56, [%rd36];
	// end inline asm
	add.s64 	%rd37, %rd35, 256;
	// begin inline asm
	ld.global.cg.u32 %r57, [%rd37];
	// end inline asm
	add.s64 	%rd38, %rd35, 384;
	// begin inline asm
	ld.global.cg.u32 %r58, [%rd38];
	// end inline asm
	add.s64 	%rd39, %rd9, %rd44;
	// begin inline asm
	st.global.cg.u32 [%rd39], %r55;
	// end inline asm
	add.s64 	%rd40, %rd39, 128;
	// begin inline asm
	st.global.cg.u32 [%rd40], %r56;
	// end inline asm
	add.s64 	%rd41, %rd39, 256;
	// begin inline asm
	st.global.cg.u32 [%rd41], %r57;
	// end inline asm
	add.s64 	%rd42, %rd39, 384;
	// begin inline asm
	st.global.cg.u32 [%rd42], %r58;
	// end inline asm
	or.b32  	%r144, %r64, 128;
	setp.eq.s32 	%p5, %r12, 1;
	@%p5 bra 	$L__BB2_9;

	add.s64 	%rd45, %rd35, 512;
	// begin inline asm
	ld.global.cg.u32 %r66, [%rd45];
	// end inline asm
	add.s64 	%rd46, %rd35, 640;
	// begin inline asm
	ld.global.cg.u32 %r67, [%rd46];
	// end inline asm
	add.s64 	%rd47, %rd35, 768;
	// begin inline asm
	ld.global.cg.u32 %r68, [%rd47];
	// end inline asm
	add.s64 	%rd48, %rd35, 896;
	// begin inline asm
	ld.global.cg.u32 %r69, [%rd48];
	// end inline asm
	add.s64 	%rd49, %rd39, 512;
	// begin inline asm
	st.global.cg.u32 [%rd49], %r66;
	// end inline asm
	add.s64 	%rd50, %rd39, 640;
	// begin inline asm
	st.global.cg.u32 [%rd50], %r67;
	// end inline asm
	add.s64 	%rd51, %rd39, 768;
	// begin inline asm
	st.global.cg.u32 [%rd51], %r68;
	// end inline asm
	add.s64 	%rd52, %rd39, 896;
	// begin inline asm
	st.global.cg.u32 [%rd52], %r69;
	// end inline asm
	or.b32  	%r144, %r64, 256;
	setp.eq.s32 	%p6, %r12, 2;
	@%p6 bra 	$L__BB2_9;

	add.s64 	%rd53, %rd35, 1024;
	// begin inline asm
	ld.global.cg.u32 %r76, [%rd53];
	// end inline asm
	add.s64 	%rd54, %rd35, 1152;
	// begin inline asm
	ld.global.cg.u32 %r77, [%rd54];
	// end inline asm
	add.s64 	%rd55, %rd35, 1280;
	// begin inline asm
	ld.global.cg.u32 %r78, [%rd55];
	// end inline asm
	add.s64 	%rd56, %rd35, 1408;
	// begin inline asm
	ld.global.cg.u32 %r79, [%rd56];
	// end inline asm
	add.s64 	%rd57, %rd39, 1024;
	// begin inline asm
	st.global.cg.u32 [%rd57], %r76;
	// end inline asm
	add.s64 	%rd58, %rd39, 1152;
	// begin inline asm
	st.global.cg.u32 [%rd58], %r77;
	// end inline asm
	add.s64 	%rd59, %rd39, 1280;
	// begin inline asm
	st.global.cg.u32 [%rd59], %r78;
	// end inline asm
	add.s64 	%rd60, %rd39, 1408;
	// begin inline asm
	st.global.cg.u32 [%rd60], %r79;
	// end inline asm
	or.b32  	%r144, %r64, 384;

$L__BB2_9:
	setp.lt.u32 	%p7, %r11, 384;
	@%p7 bra 	$L__BB2_13;

	add.s32 	%r145, %r144, 96;
	mul.wide.u32 	%rd117, %r144, 4;

$L__BB2_11:
	add.s64 	%rd93, %rd6, %rd117;
	add.s64 	%rd94, %rd9, %rd117;
	// begin inline asm
	ld.global.cg.u32 %r86, [%rd93];
	// end inline asm
	add.s64 	%rd62, %rd93, 128;
	// begin inline asm
	ld.global.cg.u32 %r87, [%rd62];
	// end inline asm
	add.s64 	%rd63, %rd93, 256;
	// begin inline asm
	ld.global.cg.u32 %r88, [%rd63];
	// end inline asm
	add.s64 	%rd64, %rd93, 384;
	// begin inline asm
	ld.global.cg.u32 %r89, [%rd64];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd94], %r86;
	// end inline asm
	add.s64 	%rd66, %rd94, 128;
	// begin inline asm
	st.global.cg.u32 [%rd66], %r87;
	// end inline asm
	add.s64 	%rd67, %rd94, 256;
	// begin inline asm
	st.global.cg.u32 [%rd67], %r88;
	// end inline asm
	add.s64 	%rd68, %rd94, 384;
	// begin inline asm
	st.global.cg.u32 [%rd68], %r89;
	// end inline asm
	add.s64 	%rd69, %rd93, 512;
	// begin inline asm
	ld.global.cg.u32 %r94, [%rd69];
	// end inline asm
	add.s64 	%rd70, %rd93, 640;
	// begin inline asm
	ld.global.cg.u32 %r95, [%rd70];
	// end inline asm
	add.s64 	%rd71, %rd93, 768;
	// begin inline asm
	ld.global.cg.u32 %r96, [%rd71];
	// end inline asm
	add.s64 	%rd72, %rd93, 896;
	// begin inline asm
	ld.global.cg.u32 %r97, [%rd72];
	// end inline asm
	add.s64 	%rd73, %rd94, 512;
	// begin inline asm
	st.global.cg.u32 [%rd73], %r94;
	// end inline asm
	add.s64 	%rd74, %rd94, 640;
	// begin inline asm
	st.global.cg.u32 [%rd74], %r95;
	// end inline asm
	add.s64 	%rd75, %rd94, 768;
	// begin inline asm
	st.global.cg.u32 [%rd75], %r96;
	// end inline asm
	add.s64 	%rd76, %rd94, 896;
	// begin inline asm
	st.global.cg.u32 [%rd76], %r97;
	// end inline asm
	add.s64 	%rd77, %rd93, 1024;
	// begin inline asm
	ld.global.cg.u32 %r102, [%rd77];
	// end inline asm
	add.s64 	%rd78, %rd93, 1152;
	// begin inline asm
	ld.global.cg.u32 %r103, [%rd78];
	// end inline asm
	add.s64 	%rd79, %rd93, 1280;
	// begin inline asm
	ld.global.cg.u32 %r104, [%rd79];
	// end inline asm
	add.s64 	%rd80, %rd93, 1408;
	// begin inline asm
	ld.global.cg.u32 %r105, [%rd80];
	// end inline asm
	add.s64 	%rd81, %rd94, 1024;
	// begin inline asm
	st.global.cg.u32 [%rd81], %r102;
	// end inline asm
	add.s64 	%rd82, %rd94, 1152;
	// begin inline asm
	st.global.cg.u32 [%rd82], %r103;
	// end inline asm
	add.s64 	%rd83, %rd94, 1280;
	// begin inline asm
	st.global.cg.u32 [%rd83], %r104;
	// end inline asm
	add.s64 	%rd84, %rd94, 1408;
	// begin inline asm
	st.global.cg.u32 [%rd84], %r105;
	// end inline asm
	add.s64 	%rd85, %rd93, 1536;
	// begin inline asm
	ld.global.cg.u32 %r110, [%rd85];
	// end inline asm
	add.s64 	%rd86, %rd93, 1664;
	// begin inline asm
	ld.global.cg.u32 %r111, [%rd86];
	// end inline asm
	add.s64 	%rd87, %rd93, 1792;
	// begin inline asm
	ld.global.cg.u32 %r112, [%rd87];
	// end inline asm
	add.s64 	%rd88, %rd93, 1920;
	// begin inline asm
	ld.global.cg.u32 %r113, [%rd88];
	// end inline asm
	add.s64 	%rd89, %rd94, 1536;
	// begin inline asm
	st.global.cg.u32 [%rd89], %r110;
	// end inline asm
	add.s64 	%rd90, %rd94, 1664;
	// begin inline asm
	st.global.cg.u32 [%rd90], %r111;
	// end inline asm
	add.s64 	%rd91, %rd94, 1792;
	// begin inline asm
	st.global.cg.u32 [%rd91], %r112;
	// end inline asm
	add.s64 	%rd92, %rd94, 1920;
	// begin inline asm
	st.global.cg.u32 [%rd92], %r113;
	// end inline asm
	add.s64 	%rd117, %rd117, 2048;
	add.s32 	%r145, %r145, 512;
	setp.lt.u32 	%p8, %r145, %r9;
	@%p8 bra 	$L__BB2_11;

	add.s32 	%r144, %r145, -96;

$L__BB2_13:
	setp.ge.u32 	%p9, %r144, %r9;
	@%p9 bra 	$L__BB2_20;

	not.b32 	%r118, %r144;
	add.s32 	%r23, %r9, %r118;
	shr.u32 	%r119, %r23, 5;
	add.s32 	%r120, %r119, 1;
	and.b32  	%r24, %r120, 3;
	setp.eq.s32 	%p10, %r24, 0;
	mov.u32 	%r147, %r144;
	@%p10 bra 	$L__BB2_18;

	mul.wide.u32 	%rd97, %r144, 4;
	add.s64 	%rd96, %rd9, %rd97;
	add.s64 	%rd95, %rd6, %rd97;
	// begin inline asm
	ld.global.cg.u32 %r121, [%rd95];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd96], %r121;
	// end inline asm
	add.s32 	%r147, %r144, 32;
	setp.eq.s32 	%p11, %r24, 1;
	@%p11 bra 	$L__BB2_18;

	mul.wide.u32 	%rd100, %r147, 4;
	add.s64 	%rd99, %rd9, %rd100;
	add.s64 	%rd98, %rd6, %rd100;
	// begin inline asm
	ld.global.cg.u32 %r123, [%rd98];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd99], %r123;
	// end inline asm
	add.s32 	%r147, %r144, 64;
	setp.eq.s32 	%p12, %r24, 2;
	@%p12 bra 	$L__BB2_18;

	mul.wide.u32 	%rd103, %r147, 4;
	add.s64 	%rd102, %rd9, %rd103;
	add.s64 	%rd101, %rd6, %rd103;
	// begin inline asm
	ld.global.cg.u32 %r125, [%rd101];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd102], %r125;
	// end inline asm
	add.s32 	%r147, %r144, 96;

$L__BB2_18:
	setp.lt.u32 	%p13, %r23, 96;
	@%p13 bra 	$L__BB2_20;

$L__BB2_19:
	mul.wide.u32 	%rd112, %r147, 4;
	add.s64 	%rd105, %rd9, %rd112;
	add.s64 	%rd104, %rd6, %rd112;
	// begin inline asm
	ld.global.cg.u32 %r127, [%rd104];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd105], %r127;
	// end inline asm
	add.s32 	%r135, %r147, 32;
	mul.wide.u32 	%rd113, %r135, 4;
	add.s64 	%rd107, %rd9, %rd113;
	add.s64 	%rd106, %rd6, %rd113;
	// begin inline asm
	ld.global.cg.u32 %r129, [%rd106];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd107], %r129;
	// end inline asm
	add.s32 	%r136, %r147, 64;
	mul.wide.u32 	%rd114, %r136, 4;
	add.s64 	%rd109, %rd9, %rd114;
	add.s64 	%rd108, %rd6, %rd114;
	// begin inline asm
	ld.global.cg.u32 %r131, [%rd108];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd109], %r131;
	// end inline asm
	add.s32 	%r137, %r147, 96;
	mul.wide.u32 	%rd115, %r137, 4;
	add.s64 	%rd111, %rd9, %rd115;
	add.s64 	%rd110, %rd6, %rd115;
	// begin inline asm
	ld.global.cg.u32 %r133, [%rd110];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd111], %r133;
	// end inline asm
	add.s32 	%r147, %r147, 128;
	setp.lt.u32 	%p14, %r147, %r9;
	@%p14 bra 	$L__BB2_19;

$L__BB2_20:
	mov.u32 	%r140, %nctaid.x;
	mad.lo.s32 	%r142, %r33, %r140, %r142;
	setp.lt.u32 	%p15, %r142, %r36;
	@%p15 bra 	$L__BB2_2;

$L__BB2_21:
	ret;

}
	// .globl	scatter_4
.visible .entry scatter_4(
	.param .align 8 .b8 scatter_4_param_0[3880]
)
.maxntid 1024, 1, 1
{
	.reg .pred 	%p<16>;
	.reg .b32 	%r<149>;
	.reg .b64 	%rd<118>;

	mov.b64 	%rd17, scatter_4_param_0;
	mov.u32 	%r32, %ntid.x;
	shr.u32 	%r33, %r32, 5;
	add.s64 	%rd1, %rd17, 24;
	ld.param.v2.u32 	{%r34, %r35}, [scatter_4_param_0+24];
	mul.lo.s32 	%r36, %r34, %r35;
	mov.u32 	%r37, %ctaid.x;
	mov.u32 	%r38, %tid.x;
	shr.u32 	%r39, %r38, 5;
	mad.lo.s32 	%r142, %r33, %r37, %r39;
	setp.ge.u32 	%p1, %r142, %r36;
	@%p1 bra 	$L__BB3_21;

	ld.param.u64 	%rd2, [%rd1+-24];
	ld.param.u32 	%r4, [%rd1+8];
	ld.param.u64 	%rd3, [%rd1+-16];
	ld.param.u64 	%rd4, [%rd1+-8];
	cvta.to.global.u64 	%rd19, %rd2;

$L__BB3_2:
	div.u32 	%r40, %r142, %r34;
	mul.lo.s32 	%r41, %r40, %r34;
	sub.s32 	%r42, %r142, %r41;
	mul.wide.u32 	%rd20, %r42, 24;
	add.s64 	%rd21, %rd19, %rd20;
	ld.global.v2.u32 	{%r43, %r44}, [%rd21+16];
	cvt.u64.u32 	%rd116, %r40;
	mul.wide.u32 	%rd23, %r40, 4;
	add.s64 	%rd24, %rd17, %rd23;
	ld.param.u32 	%rd25, [%rd24+36];
	ld.global.u64 	%rd26, [%rd21+8];
	mul.lo.s64 	%rd27, %rd26, %rd25;
	ld.global.u64 	%rd28, [%rd21];
	add.s64 	%rd6, %rd27, %rd28;
	setp.eq.s32 	%p2, %r4, 0;
	@%p2 bra 	$L__BB3_4;

	cvt.u32.u64 	%r45, %rd116;
	add.s32 	%r46, %r45, 480;
	mul.wide.u32 	%rd30, %r46, 4;
	add.s64 	%rd31, %rd17, %rd30;
	ld.param.u32 	%rd116, [%rd31+36];

$L__BB3_4:
	cvt.u64.u32 	%rd32, %r43;
	add.s64 	%rd33, %rd3, %rd32;
	mul.lo.s64 	%rd34, %rd4, %rd116;
	add.s64 	%rd9, %rd33, %rd34;
	and.b32  	%r144, %r38, 31;
	or.b32  	%r48, %r144, 96;
	shr.u32 	%r9, %r44, 2;
	setp.ge.u32 	%p3, %r48, %r9;
	@%p3 bra 	$L__BB3_13;

	and.b32  	%r144, %r38, 31;
	mov.u32 	%r51, -97;
	sub.s32 	%r52, %r51, %r144;
	add.s32 	%r11, %r52, %r9;
	shr.u32 	%r53, %r11, 7;
	add.s32 	%r54, %r53, 1;
	and.b32  	%r12, %r54, 3;
	setp.eq.s32 	%p4, %r12, 0;
	@%p4 bra 	$L__BB3_9;

	and.b32  	%r64, %r38, 31;
	shl.b32 	%r65, %r38, 2;
	cvt.u64.u32 	%rd43, %r65;
	and.b64  	%rd44, %rd43, 124;
	add.s64 	%rd35, %rd9, %rd44;
	// begin inline asm
	ld.global.cg.u32 %r55, [%rd35];
	// end inline asm
	add.s64 	%rd36, %rd35, 128;
	// begin inline asm
	ld.global.cg.u32 %r56, [%rd36];
	// end inline asm
	add.s64 	%rd37, %rd35, 256;
	// begin inline asm
	ld.global.cg.u32 %r57, [%rd37];
	// end inline asm
	add.s64 	%rd38, %rd35, 384;
	// begin inline asm
	ld.global.cg.u32 %r58, [%rd38];
	// end inline asm
	add.s64 	%rd39, %rd6, %rd44;
	// begin inline asm
	st.global.cg.u32 [%rd39], %r55;
	// end inline asm
	add.s64 	%rd40, %rd39, 128;
	// begin inline asm
	st.global.cg.u32 [%rd40], %r56;
	// end inline asm
	add.s64 	%rd41, %rd39, 256;
	// begin inline asm
	st.global.cg.u32 [%rd41], %r57;
	// end inline asm
	add.s64 	%rd42, %rd39, 384;
	// begin inline asm
	st.global.cg.u32 [%rd42], %r58;
	// end inline asm
	or.b32  	%r144, %r64, 128;
	setp.eq.s32 	%p5, %r12, 1;
	@%p5 bra 	$L__BB3_9;

	add.s64 	%rd45, %rd35, 512;
	// begin inline asm
	ld.global.cg.u32 %r66, [%rd45];
	// end inline asm
	add.s64 	%rd46, %rd35, 640;
	// begin inline asm
	ld.global.cg.u32 %r67, [%rd46];
	// end inline asm
	add.s64 	%rd47, %rd35, 768;
	// begin inline asm
	ld.global.cg.u32 %r68, [%rd47];
	// end inline asm
	add.s64 	%rd48, %rd35, 896;
	// begin inline asm
	ld.global.cg.u32 %r69, [%rd48];
	// end inline asm
	add.s64 	%rd49, %rd39, 512;
	// begin inline asm
	st.global.cg.u32 [%rd49], %r66;
	// end inline asm
	add.s64 	%rd50, %rd39, 640;
	// begin inline asm
	st.global.cg.u32 [%rd50], %r67;
	// end inline asm
	add.s64 	%rd51, %rd39, 768;
	// begin inline asm
	st.global.cg.u32 [%rd51], %r68;
	// end inline asm
	add.s64 	%rd52, %rd39, 896;
	// begin inline asm
	st.global.cg.u32 [%rd52], %r69;
	// end inline asm
	or.b32  	%r144, %r64, 256;
	setp.eq.s32 	%p6, %r12, 2;
	@%p6 bra 	$L__BB3_9;

	add.s64 	%rd53, %rd35, 1024;
	// begin inline asm
	ld.global.cg.u32 %r76, [%rd53];
	// end inline asm
	add.s64 	%rd54, %rd35, 1152;
	// begin inline asm
	ld.global.cg.u32 %r77, [%rd54];
	// end inline asm
	add.s64 	%rd55, %rd35, 1280;
	// begin inline asm
	ld.global.cg.u32 %r78, [%rd55];
	// end inline asm
	add.s64 	%rd56, %rd35, 1408;
	// begin inline asm
	ld.global.cg.u32 %r79, [%rd56];
	// end inline asm
	add.s64 	%rd57, %rd39, 1024;
	// begin inline asm
	st.global.cg.u32 [%rd57], %r76;
	// end inline asm
	add.s64 	%rd58, %rd39, 1152;
	// begin inline asm
	st.global.cg.u32 [%rd58], %r77;
	// end inline asm
	add.s64 	%rd59, %rd39, 1280;
	// begin inline asm
	st.global.cg.u32 [%rd59], %r78;
	// end inline asm
	add.s64 	%rd60, %rd39, 1408;
	// begin inline asm
	st.global.cg.u32 [%rd60], %r79;
	// end inline asm
	or.b32  	%r144, %r64, 384;

$L__BB3_9:
	setp.lt.u32 	%p7, %r11, 384;
	@%p7 bra 	$L__BB3_13;

	add.s32 	%r145, %r144, 96;
	mul.wide.u32 	%rd117, %r144, 4;

$L__BB3_11:
	add.s64 	%rd93, %rd9, %rd117;
	add.s64 	%rd94, %rd6, %rd117;
	// begin inline asm
	ld.global.cg.u32 %r86, [%rd93];
	// end inline asm
	add.s64 	%rd62, %rd93, 128;
	// begin inline asm
	ld.global.cg.u32 %r87, [%rd62];
	// end inline asm
	add.s64 	%rd63, %rd93, 256;
	// begin inline asm
	ld.global.cg.u32 %r88, [%rd63];
	// end inline asm
	add.s64 	%rd64, %rd93, 384;
	// begin inline asm
	ld.global.cg.u32 %r89, [%rd64];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd94], %r86;
	// end inline asm
	add.s64 	%rd66, %rd94, 128;
	// begin inline asm
	st.global.cg.u32 [%rd66], %r87;
	// end inline asm
	add.s64 	%rd67, %rd94, 256;
	// begin inline asm
	st.global.cg.u32 [%rd67], %r88;
	// end inline asm
	add.s64 	%rd68, %rd94, 384;
	// begin inline asm
	st.global.cg.u32 [%rd68], %r89;
	// end inline asm
	add.s64 	%rd69, %rd93, 512;
	// begin inline asm
	ld.global.cg.u32 %r94, [%rd69];
	// end inline asm
	add.s64 	%rd70, %rd93, 640;
	// begin inline asm
	ld.global.cg.u32 %r95, [%rd70];
	// end inline asm
	add.s64 	%rd71, %rd93, 768;
	// begin inline asm
	ld.global.cg.u32 %r96, [%rd71];
	// end inline asm
	add.s64 	%rd72, %rd93, 896;
	// begin inline asm
	ld.global.cg.u32 %r97, [%rd72];
	// end inline asm
	add.s64 	%rd73, %rd94, 512;
	// begin inline asm
	st.global.cg.u32 [%rd73], %r94;
	// end inline asm
	add.s64 	%rd74, %rd94, 640;
	// begin inline asm
	st.global.cg.u32 [%rd74], %r95;
	// end inline asm
	add.s64 	%rd75, %rd94, 768;
	// begin inline asm
	st.global.cg.u32 [%rd75], %r96;
	// end inline asm
	add.s64 	%rd76, %rd94, 896;
	// begin inline asm
	st.global.cg.u32 [%rd76], %r97;
	// end inline asm
	add.s64 	%rd77, %rd93, 1024;
	// begin inline asm
	ld.global.cg.u32 %r102, [%rd77];
	// end inline asm
	add.s64 	%rd78, %rd93, 1152;
	// begin inline asm
	ld.global.cg.u32 %r103, [%rd78];
	// end inline asm
	add.s64 	%rd79, %rd93, 1280;
	// begin inline asm
	ld.global.cg.u32 %r104, [%rd79];
	// end inline asm
	add.s64 	%rd80, %rd93, 1408;
	// begin inline asm
	ld.global.cg.u32 %r105, [%rd80];
	// end inline asm
	add.s64 	%rd81, %rd94, 1024;
	// begin inline asm
	st.global.cg.u32 [%rd81], %r102;
	// end inline asm
	add.s64 	%rd82, %rd94, 1152;
	// begin inline asm
	st.global.cg.u32 [%rd82], %r103;
	// end inline asm
	add.s64 	%rd83, %rd94, 1280;
	// begin inline asm
	st.global.cg.u32 [%rd83], %r104;
	// end inline asm
	add.s64 	%rd84, %rd94, 1408;
	// begin inline asm
	st.global.cg.u32 [%rd84], %r105;
	// end inline asm
	add.s64 	%rd85, %rd93, 1536;
	// begin inline asm
	ld.global.cg.u32 %r110, [%rd85];
	// end inline asm
	add.s64 	%rd86, %rd93, 1664;
	// begin inline asm
	ld.global.cg.u32 %r111, [%rd86];
	// end inline asm
	add.s64 	%rd87, %rd93, 1792;
	// begin inline asm
	ld.global.cg.u32 %r112, [%rd87];
	// end inline asm
	add.s64 	%rd88, %rd93, 1920;
	// begin inline asm
	ld.global.cg.u32 %r113, [%rd88];
	// end inline asm
	add.s64 	%rd89, %rd94, 1536;
	// begin inline asm
	st.global.cg.u32 [%rd89], %r110;
	// end inline asm
	add.s64 	%rd90, %rd94, 1664;
	// begin inline asm
	st.global.cg.u32 [%rd90], %r111;
	// end inline asm
	add.s64 	%rd91, %rd94, 1792;
	// begin inline asm
	st.global.cg.u32 [%rd91], %r112;
	// end inline asm
	add.s64 	%rd92, %rd94, 1920;
	// begin inline asm
	st.global.cg.u32 [%rd92], %r113;
	// end inline asm
	add.s64 	%rd117, %rd117, 2048;
	add.s32 	%r145, %r145, 512;
	setp.lt.u32 	%p8, %r145, %r9;
	@%p8 bra 	$L__BB3_11;

	add.s32 	%r144, %r145, -96;

$L__BB3_13:
	setp.ge.u32 	%p9, %r144, %r9;
	@%p9 bra 	$L__BB3_20;

	not.b32 	%r118, %r144;
	add.s32 	%r23, %r9, %r118;
	shr.u32 	%r119, %r23, 5;
	add.s32 	%r120, %r119, 1;
	and.b32  	%r24, %r120, 3;
	setp.eq.s32 	%p10, %r24, 0;
	mov.u32 	%r147, %r144;
	@%p10 bra 	$L__BB3_18;

	mul.wide.u32 	%rd97, %r144, 4;
	add.s64 	%rd96, %rd6, %rd97;
	add.s64 	%rd95, %rd9, %rd97;
	// begin inline asm
	ld.global.cg.u32 %r121, [%rd95];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd96], %r121;
	// end inline asm
	add.s32 	%r147, %r144, 32;
	setp.eq.s32 	%p11, %r24, 1;
	@%p11 bra 	$L__BB3_18;

	mul.wide.u32 	%rd100, %r147, 4;
	add.s64 	%rd99, %rd6, %rd100;
	add.s64 	%rd98, %rd9, %rd100;
	// begin inline asm
	ld.global.cg.u32 %r123, [%rd98];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd99], %r123;
	// end inline asm
	add.s32 	%r147, %r144, 64;
	setp.eq.s32 	%p12, %r24, 2;
	@%p12 bra 	$L__BB3_18;

	mul.wide.u32 	%rd103, %r147, 4;
	add.s64 	%rd102, %rd6, %rd103;
	add.s64 	%rd101, %rd9, %rd103;
	// begin inline asm
	ld.global.cg.u32 %r125, [%rd101];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd102], %r125;
	// end inline asm
	add.s32 	%r147, %r144, 96;

$L__BB3_18:
	setp.lt.u32 	%p13, %r23, 96;
	@%p13 bra 	$L__BB3_20;

$L__BB3_19:
	mul.wide.u32 	%rd112, %r147, 4;
	add.s64 	%rd105, %rd6, %rd112;
	add.s64 	%rd104, %rd9, %rd112;
	// begin inline asm
	ld.global.cg.u32 %r127, [%rd104];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd105], %r127;
	// end inline asm
	add.s32 	%r135, %r147, 32;
	mul.wide.u32 	%rd113, %r135, 4;
	add.s64 	%rd107, %rd6, %rd113;
	add.s64 	%rd106, %rd9, %rd113;
	// begin inline asm
	ld.global.cg.u32 %r129, [%rd106];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd107], %r129;
	// end inline asm
	add.s32 	%r136, %r147, 64;
	mul.wide.u32 	%rd114, %r136, 4;
	add.s64 	%rd109, %rd6, %rd114;
	add.s64 	%rd108, %rd9, %rd114;
	// begin inline asm
	ld.global.cg.u32 %r131, [%rd108];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd109], %r131;
	// end inline asm
	add.s32 	%r137, %r147, 96;
	mul.wide.u32 	%rd115, %r137, 4;
	add.s64 	%rd111, %rd6, %rd115;
	add.s64 	%rd110, %rd9, %rd115;
	// begin inline asm
	ld.global.cg.u32 %r133, [%rd110];
	// end inline asm
	// begin inline asm
	st.global.cg.u32 [%rd111], %r133;
	// end inline asm
	add.s32 	%r147, %r147, 128;
	setp.lt.u32 	%p14, %r147, %r9;
	@%p14 bra 	$L__BB3_19;

$L__BB3_20:
	mov.u32 	%r140, %nctaid.x;
	mad.lo.s32 	%r142, %r33, %r140, %r142;
	setp.lt.u32 	%p15, %r142, %r36;
	@%p15 bra 	$L__BB3_2;

$L__BB3_21:
	ret;

}
	// .globl	gather_1
.visible .entry gather_1(
	.param .align 8 .b8 gather_1_param_0[3880]
)
.maxntid 1024, 1, 1
{
	.reg .pred 	%p<8>;
	.reg .b32 	%r<50>;
	.reg .b64 	%rd<41>;

	mov.b64 	%rd10, gather_1_param_0;
	mov.u32 	%r20, %tid.x;
	and.b32  	%r1, %r20, 31;
	mov.u32 	%r21, %ntid.x;
	shr.u32 	%r2, %r21, 5;
	add.s64 	%rd1, %rd10, 24;
	ld.param.v2.u32 	{%r22, %r23}, [gather_1_param_0+24];
	mul.lo.s32 	%r4, %r22, %r23;
	mov.u32 	%r25, %ctaid.x;
	shr.u32 	%r26, %r20, 5;
	mad.lo.s32 	%r46, %r2, %r25, %r26;
	setp.ge.u32 	%p1, %r46, %r4;
	@%p1 bra 	$L__BB4_11;

	ld.param.u64 	%rd2, [%rd1+-24];
	ld.param.u32 	%r6, [%rd1+8];
	ld.param.u64 	%rd3, [%rd1+-16];
	ld.param.u64 	%rd4, [%rd1+-8];
	or.b32  	%r7, %r1, 96;
	mov.u32 	%r27, %nctaid.x;
	mul.lo.s32 	%r8, %r2, %r27;
	cvta.to.global.u64 	%rd12, %rd2;

$L__BB4_2:
	div.u32 	%r28, %r46, %r22;
	mul.lo.s32 	%r29, %r28, %r22;
	sub.s32 	%r30, %r46, %r29;
	mul.wide.u32 	%rd13, %r30, 24;
	add.s64 	%rd14, %rd12, %rd13;
	ld.global.v2.u32 	{%r31, %r32}, [%rd14+16];
	cvt.u64.u32 	%rd40, %r28;
	mul.wide.u32 	%rd16, %r28, 4;
	add.s64 	%rd17, %rd10, %rd16;
	ld.param.u32 	%rd18, [%rd17+36];
	ld.global.u64 	%rd19, [%rd14+8];
	mul.lo.s64 	%rd20, %rd19, %rd18;
	ld.global.u64 	%rd21, [%rd14];
	add.s64 	%rd6, %rd20, %rd21;
	setp.eq.s32 	%p2, %r6, 0;
	@%p2 bra 	$L__BB4_4;

	cvt.u32.u64 	%r33, %rd40;
	add.s32 	%r34, %r33, 480;
	mul.wide.u32 	%rd23, %r34, 4;
	add.s64 	%rd24, %rd10, %rd23;
	ld.param.u32 	%rd40, [%rd24+36];

$L__BB4_4:
	cvt.u64.u32 	%rd25, %r31;
	add.s64 	%rd26, %rd3, %rd25;
	mul.lo.s64 	%rd27, %rd4, %rd40;
	add.s64 	%rd9, %rd26, %rd27;
	setp.ge.u32 	%p3, %r7, %r32;
	mov.u32 	%r49, %r1;
	@%p3 bra 	$L__BB4_8;

	mov.u32 	%r47, %r7;

$L__BB4_6:
	add.s32 	%r43, %r47, -96;
	cvt.u64.u32 	%rd36, %r43;
	add.s64 	%rd28, %rd6, %rd36;
	// begin inline asm
	ld.global.cg.u8 %r35, [%rd28];
	// end inline asm
	add.s64 	%rd29, %rd28, 32;
	// begin inline asm
	ld.global.cg.u8 %r36, [%rd29];
	// end inline asm
	add.s64 	%rd30, %rd28, 64;
	// begin inline asm
	ld.global.cg.u8 %r37, [%rd30];
	// end inline asm
	add.s64 	%rd31, %rd28, 96;
	// begin inline asm
	ld.global.cg.u8 %r38, [%rd31];
	// end inline asm
	add.s64 	%rd32, %rd9, %rd36;
	and.b32  	%r39, %r35, 255;
	// begin inline asm
	st.global.cg.u8 [%rd32], %r39;
	// end inline asm
	add.s64 	%rd33, %rd32, 32;
	and.b32  	%r40, %r36, 255;
	// begin inline asm
	st.global.cg.u8 [%rd33], %r40;
	// end inline asm
	add.s64 	%rd34, %rd32, 64;
	and.b32  	%r41, %r37, 255;
	// begin inline asm
	st.global.cg.u8 [%rd34], %r41;
	// end inline asm
	add.s64 	%rd35, %rd32, 96;
	and.b32  	%r42, %r38, 255;
	// begin inline asm
	st.global.cg.u8 [%rd35], %r42;
	// end inline asm
	add.s32 	%r47, %r47, 128;
	setp.lt.u32 	%p4, %r47, %r32;
	@%p4 bra 	$L__BB4_6;

	add.s32 	%r49, %r47, -96;

$L__BB4_8:
	setp.ge.u32 	%p5, %r49, %r32;
	@%p5 bra 	$L__BB4_10;

$L__BB4_9:
	cvt.u64.u32 	%rd39, %r49;
	add.s64 	%rd38, %rd9, %rd39;
	add.s64 	%rd37, %rd6, %rd39;
	// begin inline asm
	ld.global.cg.u8 %r44, [%rd37];
	// end inline asm
	and.b32  	%r45, %r44, 255;
	// begin inline asm
	st.global.cg.u8 [%rd38], %r45;
	// end inline asm
	add.s32 	%r49, %r49, 32;
	setp.lt.u32 	%p6, %r49, %r32;
	@%p6 bra 	$L__BB4_9;

$L__BB4_10:
	add.s32 	%r46, %r46, %r8;
	setp.lt.u32 	%p7, %r46, %r4;
	@%p7 bra 	$L__BB4_2;

$L__BB4_11:
	ret;

}
	// .globl	scatter_1
.visible .entry scatter_1(
	.param .align 8 .b8 scatter_1_param_0[3880]
)
.maxntid 1024, 1, 1
{
	.reg .pred 	%p<8>;
	.reg .b32 	%r<50>;
	.reg .b64 	%rd<41>;

	mov.b64 	%rd10, scatter_1_param_0;
	mov.u32 	%r20, %tid.x;
	and.b32  	%r1, %r20, 31;
	mov.u32 	%r21, %ntid.x;
	shr.u32 	%r2, %r21, 5;
	add.s64 	%rd1, %rd10, 24;
	ld.param.v2.u32 	{%r22, %r23}, [scatter_1_param_0+24];
	mul.lo.s32 	%r4, %r22, %r23;
	mov.u32 	%r25, %ctaid.x;
	shr.u32 	%r26, %r20, 5;
	mad.lo.s32 	%r46, %r2, %r25, %r26;
	setp.ge.u32 	%p1, %r46, %r4;
	@%p1 bra 	$L__BB5_11;

	ld.param.u64 	%rd2, [%rd1+-24];
	ld.param.u32 	%r6, [%rd1+8];
	ld.param.u64 	%rd3, [%rd1+-16];
	ld.param.u64 	%rd4, [%rd1+-8];
	or.b32  	%r7, %r1, 96;
	mov.u32 	%r27, %nctaid.x;
	mul.lo.s32 	%r8, %r2, %r27;
	cvta.to.global.u64 	%rd12, %rd2;

$L__BB5_2:
	div.u32 	%r28, %r46, %r22;
	mul.lo.s32 	%r29, %r28, %r22;
	sub.s32 	%r30, %r46, %r29;
	mul.wide.u32 	%rd13, %r30, 24;
	add.s64 	%rd14, %rd12, %rd13;
	ld.global.v2.u32 	{%r31, %r32}, [%rd14+16];
	cvt.u64.u32 	%rd40, %r28;
	mul.wide.u32 	%rd16, %r28, 4;
	add.s64 	%rd17, %rd10, %rd16;
	ld.param.u32 	%rd18, [%rd17+36];
	ld.global.u64 	%rd19, [%rd14+8];
	mul.lo.s64 	%rd20, %rd19, %rd18;
	ld.global.u64 	%rd21, [%rd14];
	add.s64 	%rd6, %rd20, %rd21;
	setp.eq.s32 	%p2, %r6, 0;
	@%p2 bra 	$L__BB5_4;

	cvt.u32.u64 	%r33, %rd40;
	add.s32 	%r34, %r33, 480;
	mul.wide.u32 	%rd23, %r34, 4;
	add.s64 	%rd24, %rd10, %rd23;
	ld.param.u32 	%rd40, [%rd24+36];

$L__BB5_4:
	cvt.u64.u32 	%rd25, %r31;
	add.s64 	%rd26, %rd3, %rd25;
	mul.lo.s64 	%rd27, %rd4, %rd40;
	add.s64 	%rd9, %rd26, %rd27;
	setp.ge.u32 	%p3, %r7, %r32;
	mov.u32 	%r49, %r1;
	@%p3 bra 	$L__BB5_8;

	mov.u32 	%r47, %r7;

$L__BB5_6:
	add.s32 	%r43, %r47, -96;
	cvt.u64.u32 	%rd36, %r43;
	add.s64 	%rd28, %rd9, %rd36;
	// begin inline asm
	ld.global.cg.u8 %r35, [%rd28];
	// end inline asm
	add.s64 	%rd29, %rd28, 32;
	// begin inline asm
	ld.global.cg.u8 %r36, [%rd29];
	// end inline asm
	add.s64 	%rd30, %rd28, 64;
	// begin inline asm
	ld.global.cg.u8 %r37, [%rd30];
	// end inline asm
	add.s64 	%rd31, %rd28, 96;
	// begin inline asm
	ld.global.cg.u8 %r38, [%rd31];
	// end inline asm
	add.s64 	%rd32, %rd6, %rd36;
	and.b32  	%r39, %r35, 255;
	// begin inline asm
	st.global.cg.u8 [%rd32], %r39;
	// end inline asm
	add.s64 	%rd33, %rd32, 32;
	and.b32  	%r40, %r36, 255;
	// begin inline asm
	st.global.cg.u8 [%rd33], %r40;
	// end inline asm
	add.s64 	%rd34, %rd32, 64;
	and.b32  	%r41, %r37, 255;
	// begin inline asm
	st.global.cg.u8 [%rd34], %r41;
	// end inline asm
	add.s64 	%rd35, %rd32, 96;
	and.b32  	%r42, %r38, 255;
	// begin inline asm
	st.global.cg.u8 [%rd35], %r42;
	// end inline asm
	add.s32 	%r47, %r47, 128;
	setp.lt.u32 	%p4, %r47, %r32;
	@%p4 bra 	$L__BB5_6;

	add.s32 	%r49, %r47, -96;

$L__BB5_8:
	setp.ge.u32 	%p5, %r49, %r32;
	@%p5 bra 	$L__BB5_10;

$L__BB5_9:
	cvt.u64.u32 	%rd39, %r49;
	add.s64 	%rd38, %rd6, %rd39;
	add.s64 	%rd37, %rd9, %rd39;
	// begin inline asm
	ld.global.cg.u8 %r44, [%rd37];
	// end inline asm
	and.b32  	%r45, %r44, 255;
	// begin inline asm
	st.global.cg.u8 [%rd38], %r45;
	// end inline asm
	add.s32 	%r49, %r49, 32;
	setp.lt.u32 	%p6, %r49, %r32;
	@%p6 bra 	$L__BB5_9;

$L__BB5_10:
	add.s32 	%r46, %r46, %r8;
	setp.lt.u32 	%p7, %r46, %r4;
	@%p7 bra 	$L__BB5_2;

$L__BB5_11:
	ret;

}

)ptx";

inline constexpr char slim_kernels_ptx[] = R"ptx(

.version 8.0
.target sm_90
.address_size 64

	// .globl	slim_gather

.visible .entry slim_gather(
	.param .align 8 .b8 slim_gather_param_0[3880]
)
.maxnreg 32
{
	.reg .pred 	%p<24>;
	.reg .b32 	%r<252>;
	.reg .b64 	%rd<207>;
	// demoted variable
	.shared .align 128 .b8 _ZZ10copy_unitsILb1EEvRK5StageE6memory[4096];
	// demoted variable
	.shared .align 8 .b8 _ZZ10copy_unitsILb1EEvRK5StageE8barriers[16];

	mov.b64 	%rd86, slim_gather_param_0;
	mov.u32 	%r101, _ZZ10copy_unitsILb1EEvRK5StageE8barriers;
	// begin inline asm
	mbarrier.init.shared::cta.b64 [%r101], 1;
	// end inline asm
	add.s32 	%r102, %r101, 8;
	// begin inline asm
	mbarrier.init.shared::cta.b64 [%r102], 1;
	// end inline asm
	// begin inline asm
	fence.mbarrier_init.release.cluster;
	// end inline asm
	// begin inline asm
	fence.proxy.async.shared::cta;
	// end inline asm
	ld.param.v2.u32 	{%r103, %r104}, [slim_gather_param_0+24];
	mul.lo.s32 	%r1, %r103, %r104;
	mov.u32 	%r2, %ctaid.x;
	setp.lt.u32 	%p1, %r2, %r1;
	@%p1 bra 	$L__BB0_2;
	bra.uni 	$L__BB0_1;

$L__BB0_2:
	mov.u32 	%r182, %ctaid.x;
	ld.param.u32 	%r110, [%rd86+24];
	div.u32 	%r249, %r182, %r110;
	ld.param.u64 	%rd89, [%rd86];
	cvta.to.global.u64 	%rd90, %rd89;
	mul.lo.s32 	%r111, %r249, %r110;
	sub.s32 	%r112, %r182, %r111;
	mul.wide.u32 	%rd91, %r112, 24;
	add.s64 	%rd92, %rd90, %rd91;
	ld.global.u64 	%rd205, [%rd92];
	ld.global.u64 	%rd206, [%rd92+8];
	ld.global.v2.u32 	{%r250, %r251}, [%rd92+16];
	bra.uni 	$L__BB0_3;

$L__BB0_1:
	mov.u32 	%r249, 0;
	mov.u64 	%rd205, 0;
	mov.u64 	%rd206, %rd205;
	mov.u32 	%r250, %r249;
	mov.u32 	%r251, %r249;

$L__BB0_3:
	mov.u32 	%r247, %ctaid.x;
	mov.u64 	%rd189, 0;
	mov.u32 	%r9, %nctaid.x;
	setp.ge.u32 	%p2, %r247, %r1;
	mov.u32 	%r248, 0;
	mov.u64 	%rd204, %rd189;
	mov.u32 	%r229, %r248;
	@%p2 bra 	$L__BB0_7;

	ld.param.u64 	%rd150, [%rd86+8];
	ld.param.u64 	%rd149, [%rd86+16];
	mov.u32 	%r181, %ctaid.x;
	cvt.u64.u32 	%rd96, %r249;
	mul.wide.u32 	%rd97, %r249, 4;
	add.s64 	%rd98, %rd86, %rd97;
	ld.param.u32 	%rd99, [%rd98+36];
	mul.lo.s64 	%rd100, %rd206, %rd99;
	add.s64 	%rd204, %rd100, %rd205;
	mul.lo.s64 	%rd101, %rd149, %rd96;
	cvt.u64.u32 	%rd102, %r250;
	add.s64 	%rd103, %rd150, %rd102;
	add.s64 	%rd189, %rd103, %rd101;
	add.s32 	%r247, %r181, %r9;
	setp.ge.u32 	%p3, %r247, %r1;
	mov.u32 	%r190, %r251;
	@%p3 bra 	$L__BB0_6;

	ld.param.u64 	%rd154, [%rd86];
	cvta.to.global.u64 	%rd153, %rd154;
	ld.param.u32 	%r184, [%rd86+24];
	div.u32 	%r249, %r247, %r184;
	mul.lo.s32 	%r117, %r249, %r184;
	sub.s32 	%r118, %r247, %r117;
	mul.wide.u32 	%rd104, %r118, 24;
	add.s64 	%rd105, %rd153, %rd104;
	ld.global.u64 	%rd205, [%rd105];
	ld.global.u64 	%rd206, [%rd105+8];
	ld.global.v2.u32 	{%r250, %r190}, [%rd105+16];

$L__BB0_6:
	min.u32 	%r229, %r251, 2048;
	mov.u32 	%r248, %r251;
	mov.u32 	%r251, %r190;

$L__BB0_7:
	setp.eq.s32 	%p4, %r229, 0;
	mov.u64 	%rd165, %rd189;
	@%p4 bra 	$L__BB0_9;

	// begin inline asm
	mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r101], %r229;
	// end inline asm
	mov.u32 	%r123, _ZZ10copy_unitsILb1EEvRK5StageE6memory;
	// begin inline asm
	cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r123], [%rd204], %r229, [%r101];
	// end inline asm
	cvt.u64.u32 	%rd107, %r229;
	add.s64 	%rd204, %rd204, %rd107;
	add.s64 	%rd165, %rd189, %rd107;
	sub.s32 	%r248, %r248, %r229;

$L__BB0_9:
	setp.ne.s32 	%p5, %r248, 0;
	@%p5 bra 	$L__BB0_13;
	bra.uni 	$L__BB0_10;

$L__BB0_13:
	min.u32 	%r210, %r248, 2048;

$L__BB0_14:
	setp.eq.s32 	%p8, %r210, 0;
	mov.u64 	%rd203, %rd165;
	@%p8 bra 	$L__BB0_16;

	// begin inline asm
	mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r102], %r210;
	// end inline asm
	mov.u32 	%r138, _ZZ10copy_unitsILb1EEvRK5StageE6memory;
	add.s32 	%r134, %r138, 2048;
	// begin inline asm
	cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r134], [%rd204], %r210, [%r102];
	// end inline asm
	cvt.u64.u32 	%rd119, %r210;
	add.s64 	%rd204, %rd204, %rd119;
	add.s64 	%rd203, %rd165, %rd119;
	sub.s32 	%r248, %r248, %r210;

$L__BB0_16:
	setp.eq.s32 	%p23, %r229, 0;
	@%p23 bra 	$L__BB0_37;

	ld.param.u64 	%rd39, [%rd86+8];
	ld.param.u64 	%rd40, [%rd86+16];
	ld.param.u32 	%r45, [%rd86+24];
	ld.param.u64 	%rd120, [%rd86];
	cvta.to.global.u64 	%rd41, %rd120;
	mov.u32 	%r139, 0;
	mov.u32 	%r212, %r139;
	bra.uni 	$L__BB0_18;

$L__BB0_21:
	setp.ge.u32 	%p13, %r247, %r1;
	mov.u32 	%r248, 0;
	mov.u32 	%r228, %r248;
	@%p13 bra 	$L__BB0_25;

	cvt.u64.u32 	%rd122, %r249;
	mul.wide.u32 	%rd123, %r249, 4;
	add.s64 	%rd124, %rd86, %rd123;
	ld.param.u32 	%rd125, [%rd124+36];
	mul.lo.s64 	%rd126, %rd206, %rd125;
	add.s64 	%rd204, %rd126, %rd205;
	mul.lo.s64 	%rd127, %rd40, %rd122;
	cvt.u64.u32 	%rd128, %r250;
	add.s64 	%rd129, %rd39, %rd128;
	add.s64 	%rd203, %rd129, %rd127;
	add.s32 	%r247, %r247, %r9;
	setp.ge.u32 	%p14, %r247, %r1;
	mov.u32 	%r248, %r251;
	@%p14 bra 	$L__BB0_24;

	div.u32 	%r249, %r247, %r45;
	mul.lo.s32 	%r148, %r249, %r45;
	sub.s32 	%r149, %r247, %r148;
	mul.wide.u32 	%rd130, %r149, 24;
	add.s64 	%rd131, %rd41, %rd130;
	ld.global.u64 	%rd205, [%rd131];
	ld.global.u64 	%rd206, [%rd131+8];
	ld.global.v2.u32 	{%r250, %r151}, [%rd131+16];
	mov.u32 	%r248, %r251;
	mov.u32 	%r251, %r151;
	bra.uni 	$L__BB0_24;

$L__BB0_30:
	setp.ge.u32 	%p19, %r247, %r1;
	mov.u32 	%r248, 0;
	mov.u32 	%r245, %r248;
	@%p19 bra 	$L__BB0_34;

	cvt.u64.u32 	%rd135, %r249;
	mul.wide.u32 	%rd136, %r249, 4;
	add.s64 	%rd137, %rd86, %rd136;
	ld.param.u32 	%rd138, [%rd137+36];
	mul.lo.s64 	%rd139, %rd206, %rd138;
	add.s64 	%rd204, %rd139, %rd205;
	mul.lo.s64 	%rd140, %rd40, %rd135;
	cvt.u64.u32 	%rd141, %r250;
	add.s64 	%rd142, %rd39, %rd141;
	add.s64 	%rd203, %rd142, %rd140;
	add.s32 	%r247, %r247, %r9;
	setp.ge.u32 	%p20, %r247, %r1;
	mov.u32 	%r248, %r251;
	@%p20 bra 	$L__BB0_33;

	div.u32 	%r249, %r247, %r45;
	mul.lo.s32 	%r168, %r249, %r45;
	sub.s32 	%r169, %r247, %r168;
	mul.wide.u32 	%rd143, %r169, 24;
	add.s64 	%rd144, %rd41, %rd143;
	ld.global.u64 	%rd205, [%rd144];
	ld.global.u64 	%rd206, [%rd144+8];
	ld.global.v2.u32 	{%r250, %r171}, [%rd144+16];
	mov.u32 	%r248, %r251;
	mov.u32 	%r251, %r171;
	bra.uni 	$L__BB0_33;

$L__BB0_18:
	.pragma "nounroll";
	mov.u32 	%r47, %r229;
	mov.u32 	%r46, %r210;
	setp.eq.s32 	%p10, %r47, 0;
	mov.u32 	%r229, %r139;
	@%p10 bra 	$L__BB0_27;

$L__BB0_19:
	// begin inline asm
	{
.reg .pred there;
mbarrier.try_wait.parity.shared::cta.b64 there, [%r101], %r212;
selp.u32 %r141, 1, 0, there;
}
	// end inline asm
	setp.eq.s32 	%p11, %r141, 0;
	@%p11 bra 	$L__BB0_19;

	// begin inline asm
	fence.proxy.async.shared::cta;
	// end inline asm
	mov.u32 	%r144, _ZZ10copy_unitsILb1EEvRK5StageE6memory;
	// begin inline asm
	cp.async.bulk.global.shared::cta.bulk_group [%rd189], [%r144], %r47;
	// end inline asm
	// begin inline asm
	cp.async.bulk.commit_group;
	// end inline asm
	// begin inline asm
	cp.async.bulk.wait_group.read 0;
	// end inline asm
	setp.ne.s32 	%p12, %r248, 0;
	@%p12 bra 	$L__BB0_24;
	bra.uni 	$L__BB0_21;

$L__BB0_24:
	min.u32 	%r228, %r248, 2048;

$L__BB0_25:
	setp.eq.s32 	%p15, %r228, 0;
	mov.u32 	%r229, %r139;
	@%p15 bra 	$L__BB0_27;

	// begin inline asm
	mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r101], %r228;
	// end inline asm
	// begin inline asm
	cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r144], [%rd204], %r228, [%r101];
	// end inline asm
	cvt.u64.u32 	%rd133, %r228;
	add.s64 	%rd204, %rd204, %rd133;
	add.s64 	%rd61, %rd203, %rd133;
	sub.s32 	%r248, %r248, %r228;
	mov.u64 	%rd189, %rd203;
	mov.u32 	%r229, %r228;
	mov.u64 	%rd203, %rd61;

$L__BB0_27:
	setp.eq.s32 	%p16, %r46, 0;
	mov.u32 	%r210, 0;
	@%p16 bra 	$L__BB0_36;

$L__BB0_28:
	// begin inline asm
	{
.reg .pred there;
mbarrier.try_wait.parity.shared::cta.b64 there, [%r102], %r212;
selp.u32 %r159, 1, 0, there;
}
	// end inline asm
	setp.eq.s32 	%p17, %r159, 0;
	@%p17 bra 	$L__BB0_28;

	// begin inline asm
	fence.proxy.async.shared::cta;
	// end inline asm
	mov.u32 	%r165, _ZZ10copy_unitsILb1EEvRK5StageE6memory;
	add.s32 	%r163, %r165, 2048;
	// begin inline asm
	cp.async.bulk.global.shared::cta.bulk_group [%rd165], [%r163], %r46;
	// end inline asm
	// begin inline asm
	cp.async.bulk.commit_group;
	// end inline asm
	// begin inline asm
	cp.async.bulk.wait_group.read 0;
	// end inline asm
	setp.ne.s32 	%p18, %r248, 0;
	@%p18 bra 	$L__BB0_33;
	bra.uni 	$L__BB0_30;

$L__BB0_33:
	min.u32 	%r245, %r248, 2048;

$L__BB0_34:
	setp.eq.s32 	%p21, %r245, 0;
	@%p21 bra 	$L__BB0_36;

	// begin inline asm
	mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r102], %r245;
	// end inline asm
	// begin inline asm
	cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r163], [%rd204], %r245, [%r102];
	// end inline asm
	cvt.u64.u32 	%rd146, %r245;
	add.s64 	%rd204, %rd204, %rd146;
	add.s64 	%rd80, %rd203, %rd146;
	sub.s32 	%r248, %r248, %r245;
	mov.u64 	%rd165, %rd203;
	mov.u32 	%r210, %r245;
	mov.u64 	%rd203, %rd80;

$L__BB0_36:
	xor.b32  	%r212, %r212, 1;
	setp.ne.s32 	%p22, %r229, 0;
	@%p22 bra 	$L__BB0_18;

$L__BB0_37:
	// begin inline asm
	cp.async.bulk.wait_group 0;
	// end inline asm
	ret;

$L__BB0_10:
	setp.ge.u32 	%p6, %r247, %r1;
	mov.u32 	%r248, 0;
	mov.u32 	%r210, %r248;
	@%p6 bra 	$L__BB0_14;

	ld.param.u64 	%rd148, [%rd86+8];
	ld.param.u64 	%rd147, [%rd86+16];
	cvt.u64.u32 	%rd108, %r249;
	mul.wide.u32 	%rd109, %r249, 4;
	add.s64 	%rd110, %rd86, %rd109;
	ld.param.u32 	%rd111, [%rd110+36];
	mul.lo.s64 	%rd112, %rd206, %rd111;
	add.s64 	%rd204, %rd112, %rd205;
	mul.lo.s64 	%rd113, %rd147, %rd108;
	cvt.u64.u32 	%rd114, %r250;
	add.s64 	%rd115, %rd148, %rd114;
	add.s64 	%rd165, %rd115, %rd113;
	add.s32 	%r247, %r247, %r9;
	setp.ge.u32 	%p7, %r247, %r1;
	mov.u32 	%r248, %r251;
	@%p7 bra 	$L__BB0_13;

	ld.param.u64 	%rd152, [%rd86];
	cvta.to.global.u64 	%rd151, %rd152;
	ld.param.u32 	%r183, [%rd86+24];
	div.u32 	%r249, %r247, %r183;
	mul.lo.s32 	%r128, %r249, %r183;
	sub.s32 	%r129, %r247, %r128;
	mul.wide.u32 	%rd116, %r129, 24;
	add.s64 	%rd117, %rd151, %rd116;
	ld.global.u64 	%rd205, [%rd117];
	ld.global.u64 	%rd206, [%rd117+8];
	ld.global.v2.u32 	{%r250, %r131}, [%rd117+16];
	mov.u32 	%r248, %r251;
	mov.u32 	%r251, %r131;
	bra.uni 	$L__BB0_13;

}
	// .globl	slim_scatter
.visible .entry slim_scatter(
	.param .align 8 .b8 slim_scatter_param_0[3880]
)
.maxnreg 32
{
	.reg .pred 	%p<24>;
	.reg .b32 	%r<252>;
	.reg .b64 	%rd<207>;
	// demoted variable
	.shared .align 128 .b8 _ZZ10copy_unitsILb0EEvRK5StageE6memory[4096];
	// demoted variable
	.shared .align 8 .b8 _ZZ10copy_unitsILb0EEvRK5StageE8barriers[16];

	mov.b64 	%rd86, slim_scatter_param_0;
	mov.u32 	%r101, _ZZ10copy_unitsILb0EEvRK5StageE8barriers;
	// begin inline asm
	mbarrier.init.shared::cta.b64 [%r101], 1;
	// end inline asm
	add.s32 	%r102, %r101, 8;
	// begin inline asm
	mbarrier.init.shared::cta.b64 [%r102], 1;
	// end inline asm
	// begin inline asm
	fence.mbarrier_init.release.cluster;
	// end inline asm
	// begin inline asm
	fence.proxy.async.shared::cta;
	// end inline asm
	ld.param.v2.u32 	{%r103, %r104}, [slim_scatter_param_0+24];
	mul.lo.s32 	%r1, %r103, %r104;
	mov.u32 	%r2, %ctaid.x;
	setp.lt.u32 	%p1, %r2, %r1;
	@%p1 bra 	$L__BB1_2;
	bra.uni 	$L__BB1_1;

$L__BB1_2:
	mov.u32 	%r182, %ctaid.x;
	ld.param.u32 	%r110, [%rd86+24];
	div.u32 	%r249, %r182, %r110;
	ld.param.u64 	%rd89, [%rd86];
	cvta.to.global.u64 	%rd90, %rd89;
	mul.lo.s32 	%r111, %r249, %r110;
	sub.s32 	%r112, %r182, %r111;
	mul.wide.u32 	%rd91, %r112, 24;
	add.s64 	%rd92, %rd90, %rd91;
	ld.global.u64 	%rd205, [%rd92];
	ld.global.u64 	%rd206, [%rd92+8];
	ld.global.v2.u32 	{%r250, %r251}, [%rd92+16];
	bra.uni 	$L__BB1_3;

$L__BB1_1:
	mov.u32 	%r249, 0;
	mov.u64 	%rd205, 0;
	mov.u64 	%rd206, %rd205;
	mov.u32 	%r250, %r249;
	mov.u32 	%r251, %r249;

$L__BB1_3:
	mov.u32 	%r247, %ctaid.x;
	mov.u64 	%rd203, 0;
	mov.u32 	%r9, %nctaid.x;
	setp.ge.u32 	%p2, %r247, %r1;
	mov.u32 	%r248, 0;
	mov.u64 	%rd189, %rd203;
	mov.u32 	%r229, %r248;
	@%p2 bra 	$L__BB1_7;

	ld.param.u64 	%rd150, [%rd86+8];
	ld.param.u64 	%rd149, [%rd86+16];
	mov.u32 	%r181, %ctaid.x;
	cvt.u64.u32 	%rd96, %r249;
	mul.wide.u32 	%rd97, %r249, 4;
	add.s64 	%rd98, %rd86, %rd97;
	ld.param.u32 	%rd99, [%rd98+36];
	mul.lo.s64 	%rd100, %rd206, %rd99;
	add.s64 	%rd189, %rd100, %rd205;
	mul.lo.s64 	%rd101, %rd149, %rd96;
	cvt.u64.u32 	%rd102, %r250;
	add.s64 	%rd103, %rd150, %rd102;
	add.s64 	%rd203, %rd103, %rd101;
	add.s32 	%r247, %r181, %r9;
	setp.ge.u32 	%p3, %r247, %r1;
	mov.u32 	%r190, %r251;
	@%p3 bra 	$L__BB1_6;

	ld.param.u64 	%rd154, [%rd86];
	cvta.to.global.u64 	%rd153, %rd154;
	ld.param.u32 	%r184, [%rd86+24];
	div.u32 	%r249, %r247, %r184;
	mul.lo.s32 	%r117, %r249, %r184;
	sub.s32 	%r118, %r247, %r117;
	mul.wide.u32 	%rd104, %r118, 24;
	add.s64 	%rd105, %rd153, %rd104;
	ld.global.u64 	%rd205, [%rd105];
	ld.global.u64 	%rd206, [%rd105+8];
	ld.global.v2.u32 	{%r250, %r190}, [%rd105+16];

$L__BB1_6:
	min.u32 	%r229, %r251, 2048;
	mov.u32 	%r248, %r251;
	mov.u32 	%r251, %r190;

$L__BB1_7:
	setp.eq.s32 	%p4, %r229, 0;
	mov.u64 	%rd166, %rd189;
	@%p4 bra 	$L__BB1_9;

	// begin inline asm
	mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r101], %r229;
	// end inline asm
	mov.u32 	%r123, _ZZ10copy_unitsILb0EEvRK5StageE6memory;
	// begin inline asm
	cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r123], [%rd203], %r229, [%r101];
	// end inline asm
	cvt.u64.u32 	%rd107, %r229;
	add.s64 	%rd166, %rd189, %rd107;
	add.s64 	%rd203, %rd203, %rd107;
	sub.s32 	%r248, %r248, %r229;

$L__BB1_9:
	setp.ne.s32 	%p5, %r248, 0;
	@%p5 bra 	$L__BB1_13;
	bra.uni 	$L__BB1_10;

$L__BB1_13:
	min.u32 	%r210, %r248, 2048;

$L__BB1_14:
	setp.eq.s32 	%p8, %r210, 0;
	mov.u64 	%rd204, %rd166;
	@%p8 bra 	$L__BB1_16;

	// begin inline asm
	mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r102], %r210;
	// end inline asm
	mov.u32 	%r138, _ZZ10copy_unitsILb0EEvRK5StageE6memory;
	add.s32 	%r134, %r138, 2048;
	// begin inline asm
	cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r134], [%rd203], %r210, [%r102];
	// end inline asm
	cvt.u64.u32 	%rd119, %r210;
	add.s64 	%rd204, %rd166, %rd119;
	add.s64 	%rd203, %rd203, %rd119;
	sub.s32 	%r248, %r248, %r210;

$L__BB1_16:
	setp.eq.s32 	%p23, %r229, 0;
	@%p23 bra 	$L__BB1_37;

	ld.param.u64 	%rd39, [%rd86+8];
	ld.param.u64 	%rd40, [%rd86+16];
	ld.param.u32 	%r45, [%rd86+24];
	ld.param.u64 	%rd120, [%rd86];
	cvta.to.global.u64 	%rd41, %rd120;
	mov.u32 	%r139, 0;
	mov.u32 	%r212, %r139;
	bra.uni 	$L__BB1_18;

$L__BB1_21:
	setp.ge.u32 	%p13, %r247, %r1;
	mov.u32 	%r248, 0;
	mov.u32 	%r228, %r248;
	@%p13 bra 	$L__BB1_25;

	cvt.u64.u32 	%rd122, %r249;
	mul.wide.u32 	%rd123, %r249, 4;
	add.s64 	%rd124, %rd86, %rd123;
	ld.param.u32 	%rd125, [%rd124+36];
	mul.lo.s64 	%rd126, %rd206, %rd125;
	add.s64 	%rd204, %rd126, %rd205;
	mul.lo.s64 	%rd127, %rd40, %rd122;
	cvt.u64.u32 	%rd128, %r250;
	add.s64 	%rd129, %rd39, %rd128;
	add.s64 	%rd203, %rd129, %rd127;
	add.s32 	%r247, %r247, %r9;
	setp.ge.u32 	%p14, %r247, %r1;
	mov.u32 	%r248, %r251;
	@%p14 bra 	$L__BB1_24;

	div.u32 	%r249, %r247, %r45;
	mul.lo.s32 	%r148, %r249, %r45;
	sub.s32 	%r149, %r247, %r148;
	mul.wide.u32 	%rd130, %r149, 24;
	add.s64 	%rd131, %rd41, %rd130;
	ld.global.u64 	%rd205, [%rd131];
	ld.global.u64 	%rd206, [%rd131+8];
	ld.global.v2.u32 	{%r250, %r151}, [%rd131+16];
	mov.u32 	%r248, %r251;
	mov.u32 	%r251, %r151;
	bra.uni 	$L__BB1_24;

$L__BB1_30:
	setp.ge.u32 	%p19, %r247, %r1;
	mov.u32 	%r248, 0;
	mov.u32 	%r245, %r248;
	@%p19 bra 	$L__BB1_34;

	cvt.u64.u32 	%rd135, %r249;
	mul.wide.u32 	%rd136, %r249, 4;
	add.s64 	%rd137, %rd86, %rd136;
	ld.param.u32 	%rd138, [%rd137+36];
	mul.lo.s64 	%rd139, %rd206, %rd138;
	add.s64 	%rd204, %rd139, %rd205;
	mul.lo.s64 	%rd140, %rd40, %rd135;
	cvt.u64.u32 	%rd141, %r250;
	add.s64 	%rd142, %rd39, %rd141;
	add.s64 	%rd203, %rd142, %rd140;
	add.s32 	%r247, %r247, %r9;
	setp.ge.u32 	%p20, %r247, %r1;
	mov.u32 	%r248, %r251;
	@%p20 bra 	$L__BB1_33;

	div.u32 	%r249, %r247, %r45;
	mul.lo.s32 	%r168, %r249, %r45;
	sub.s32 	%r169, %r247, %r168;
	mul.wide.u32 	%rd143, %r169, 24;
	add.s64 	%rd144, %rd41, %rd143;
	ld.global.u64 	%rd205, [%rd144];
	ld.global.u64 	%rd206, [%rd144+8];
	ld.global.v2.u32 	{%r250, %r171}, [%rd144+16];
	mov.u32 	%r248, %r251;
	mov.u32 	%r251, %r171;
	bra.uni 	$L__BB1_33;

$L__BB1_18:
	.pragma "nounroll";
	mov.u32 	%r47, %r229;
	mov.u32 	%r46, %r210;
	setp.eq.s32 	%p10, %r47, 0;
	mov.u32 	%r229, %r139;
	@%p10 bra 	$L__BB1_27;

$L__BB1_19:
	// begin inline asm
	{
.reg .pred there;
mbarrier.try_wait.parity.shared::cta.b64 there, [%r101], %r212;
selp.u32 %r141, 1, 0, there;
}
	// end inline asm
	setp.eq.s32 	%p11, %r141, 0;
	@%p11 bra 	$L__BB1_19;

	// begin inline asm
	fence.proxy.async.shared::cta;
	// end inline asm
	mov.u32 	%r144, _ZZ10copy_unitsILb0EEvRK5StageE6memory;
	// begin inline asm
	cp.async.bulk.global.shared::cta.bulk_group [%rd189], [%r144], %r47;
	// end inline asm
	// begin inline asm
	cp.async.bulk.commit_group;
	// end inline asm
	// begin inline asm
	cp.async.bulk.wait_group.read 0;
	// end inline asm
	setp.ne.s32 	%p12, %r248, 0;
	@%p12 bra 	$L__BB1_24;
	bra.uni 	$L__BB1_21;

$L__BB1_24:
	min.u32 	%r228, %r248, 2048;

$L__BB1_25:
	setp.eq.s32 	%p15, %r228, 0;
	mov.u32 	%r229, %r139;
	@%p15 bra 	$L__BB1_27;

	// begin inline asm
	mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r101], %r228;
	// end inline asm
	// begin inline asm
	cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r144], [%rd203], %r228, [%r101];
	// end inline asm
	cvt.u64.u32 	%rd133, %r228;
	add.s64 	%rd60, %rd204, %rd133;
	add.s64 	%rd203, %rd203, %rd133;
	sub.s32 	%r248, %r248, %r228;
	mov.u64 	%rd189, %rd204;
	mov.u32 	%r229, %r228;
	mov.u64 	%rd204, %rd60;

$L__BB1_27:
	setp.eq.s32 	%p16, %r46, 0;
	mov.u32 	%r210, 0;
	@%p16 bra 	$L__BB1_36;

$L__BB1_28:
	// begin inline asm
	{
.reg .pred there;
mbarrier.try_wait.parity.shared::cta.b64 there, [%r102], %r212;
selp.u32 %r159, 1, 0, there;
}
	// end inline asm
	setp.eq.s32 	%p17, %r159, 0;
	@%p17 bra 	$L__BB1_28;

	// begin inline asm
	fence.proxy.async.shared::cta;
	// end inline asm
	mov.u32 	%r165, _ZZ10copy_unitsILb0EEvRK5StageE6memory;
	add.s32 	%r163, %r165, 2048;
	// begin inline asm
	cp.async.bulk.global.shared::cta.bulk_group [%rd166], [%r163], %r46;
	// end inline asm
	// begin inline asm
	cp.async.bulk.commit_group;
	// end inline asm
	// begin inline asm
	cp.async.bulk.wait_group.read 0;
	// end inline asm
	setp.ne.s32 	%p18, %r248, 0;
	@%p18 bra 	$L__BB1_33;
	bra.uni 	$L__BB1_30;

$L__BB1_33:
	min.u32 	%r245, %r248, 2048;

$L__BB1_34:
	setp.eq.s32 	%p21, %r245, 0;
	@%p21 bra 	$L__BB1_36;

	// begin inline asm
	mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r102], %r245;
	// end inline asm
	// begin inline asm
	cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r163], [%rd203], %r245, [%r102];
	// end inline asm
	cvt.u64.u32 	%rd146, %r245;
	add.s64 	%rd79, %rd204, %rd146;
	add.s64 	%rd203, %rd203, %rd146;
	sub.s32 	%r248, %r248, %r245;
	mov.u64 	%rd166, %rd204;
	mov.u32 	%r210, %r245;
	mov.u64 	%rd204, %rd79;

$L__BB1_36:
	xor.b32  	%r212, %r212, 1;
	setp.ne.s32 	%p22, %r229, 0;
	@%p22 bra 	$L__BB1_18;

$L__BB1_37:
	// begin inline asm
	cp.async.bulk.wait_group 0;
	// end inline asm
	ret;

$L__BB1_10:
	setp.ge.u32 	%p6, %r247, %r1;
	mov.u32 	%r248, 0;
	mov.u32 	%r210, %r248;
	@%p6 bra 	$L__BB1_14;

	ld.param.u64 	%rd148, [%rd86+8];
	ld.param.u64 	%rd147, [%rd86+16];
	cvt.u64.u32 	%rd108, %r249;
	mul.wide.u32 	%rd109, %r249, 4;
	add.s64 	%rd110, %rd86, %rd109;
	ld.param.u32 	%rd111, [%rd110+36];
	mul.lo.s64 	%rd112, %rd206, %rd111;
	add.s64 	%rd166, %rd112, %rd205;
	mul.lo.s64 	%rd113, %rd147, %rd108;
	cvt.u64.u32 	%rd114, %r250;
	add.s64 	%rd115, %rd148, %rd114;
	add.s64 	%rd203, %rd115, %rd113;
	add.s32 	%r247, %r247, %r9;
	setp.ge.u32 	%p7, %r247, %r1;
	mov.u32 	%r248, %r251;
	@%p7 bra 	$L__BB1_13;

	ld.param.u64 	%rd152, [%rd86];
	cvta.to.global.u64 	%rd151, %rd152;
	ld.param.u32 	%r183, [%rd86+24];
	div.u32 	%r249, %r247, %r183;
	mul.lo.s32 	%r128, %r249, %r183;
	sub.s32 	%r129, %r247, %r128;
	mul.wide.u32 	%rd116, %r129, 24;
	add.s64 	%rd117, %rd151, %rd116;
	ld.global.u64 	%rd205, [%rd117];
	ld.global.u64 	%rd206, [%rd117+8];
	ld.global.v2.u32 	{%r250, %r131}, [%rd117+16];
	mov.u32 	%r248, %r251;
	mov.u32 	%r251, %r131;
	bra.uni 	$L__BB1_13;

}

)ptx";

}  // namespace flexkv::cuda
